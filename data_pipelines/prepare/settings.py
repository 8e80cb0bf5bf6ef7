"""Settings of a data set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_pipelines.captions.clean import CaptionRules
from data_pipelines.pictures.decode import MAX_PIXELS
from data_pipelines.pictures.jpeg import Subsampling
from data_pipelines.pictures.resize import Resize
from data_pipelines.sources.base import MAX_BAD_SHARE
from seqtok_core.foundation.config import Config

ONLY_HOW = {"processes", "engine", "ray_address", "max_bad_share", "max_bad_run"}  # no part of a data set's identity
OF_SOURCE = {"shuffle"}  # what it makes of a source is part of the source's identity


class PrepareConfig(Config):
    """Settings of a data set. The last five say how it is made and what is refused, the others decide its bytes."""

    name: str = Field("data", pattern=r"^[A-Za-z0-9_]{1,64}$", description="First part of the shards' names.")
    size: int = Field(64, ge=1, le=8192, description="Pixels per side: short side, then centre crop.")
    form: Literal["png", "jpg"] = Field("png", description="Of pictures that must be encoded again.")
    quality: int = Field(95, ge=1, le=100, description="Of jpg.")
    subsampling: Subsampling = Field("444", description="Colour of jpg; 420 is a sixth smaller and loses 4.5 dB.")
    resize: Resize = Field("fast", description="How large JPEG shrinks: docs/images.md.")
    samples_per_shard: int = Field(1000, ge=1, description="Samples of a shard; the last has fewer.")
    shuffle: Literal["auto", "on", "off"] = Field(
        "auto", description="Mix the samples of all shards; auto: where the source is sorted by a label or caption."
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="Most that are held while a picture is decoded.")
    captions: CaptionRules = CaptionRules()
    no_caption: Literal["drop", "keep"] = Field("drop", description="Pictures without any caption.")
    max_bad_share: float = Field(MAX_BAD_SHARE, ge=0, le=1, description="More bad samples than this are an error.")
    max_bad_run: int = Field(100, ge=0, description="So many bad samples in a row are an error; 0: no limit.")
    processes: int = Field(1, ge=1, description="Worker processes.")
    engine: Literal["processes", "ray"] = Field(
        "processes", description="Who builds shards: this machine, or a Ray cluster."
    )
    ray_address: str = Field(
        "auto", min_length=1, description="auto, HOST:PORT, ray://HOST:PORT, or local: start one here."
    )
