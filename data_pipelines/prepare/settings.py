"""Settings of a data set."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_pipelines.captions.clean import CaptionRules
from data_pipelines.pictures.decode import MAX_PIXELS
from data_pipelines.pictures.jpeg import Subsampling
from data_pipelines.pictures.resize import Resize
from seqtok_core.foundation.config import Config

_ONLY_HOW = {"processes", "engine", "ray_address", "max_bad_share", "max_bad_run"}


class PrepareConfig(Config):
    """Settings of a data set. The last five say how it is made and what is refused, the others decide its bytes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")] = "data"
    size: Annotated[int, Field(ge=1, le=8192)] = 64  # pixels, square
    form: Literal["png", "jpg"] = "png"  # of pictures that must be encoded again
    quality: Annotated[int, Field(ge=1, le=100)] = 95  # of jpg
    subsampling: Subsampling = "444"  # colour of jpg; "420" is a sixth smaller and loses 4.5 dB
    resize: Resize = "fast"  # "exact": large JPEG is decoded in full and filtered; docs/images.md has the difference
    samples_per_shard: Annotated[int, Field(ge=1)] = 1000
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    captions: CaptionRules = CaptionRules()
    no_caption: Literal["drop", "keep"] = "drop"
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.02  # more bad samples than this are an error
    max_bad_run: Annotated[int, Field(ge=0)] = 100  # so many bad ones in a row of a shard are an error; 0: no limit
    processes: Annotated[int, Field(ge=1)] = 1
    engine: Literal["processes", "ray"] = "processes"
    ray_address: Annotated[str, Field(min_length=1)] = "auto"  # or local, HOST:PORT, ray://HOST:PORT
