"""What an export writes, and what OUT says about its form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_pipelines.shards.parts import Format
from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.sources.records import CAPTIONS, Fields
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError

FORMAT_VERSION = 1  # of everything that an export writes; part of its fingerprints
Table = Literal["latents", "images", "texts"]
_SINGLE_FILE = ".parquet"
_OTHER_FILES = (".npy", ".npz", ".tar", ".json", ".jsonl", ".csv")


class ExportConfig(Config):
    """Settings of an export; all but `processes`, `batch` and `max_bad_share` decide which numbers are written."""

    what: Literal["latents", "embeddings"] = Field(
        "latents", description="Latents, or embeddings in the space of texts."
    )
    format: Format | None = Field(None, description="By default webdataset for latents, else parquet.")
    side: Literal["image", "text", "both"] = Field(
        "image", description="Embeddings: of pictures, of all their captions, or both."
    )
    prefixes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Embeddings: tokens that count; repeat; all tokens."
    )
    splits: tuple[str, ...] = Field((), description="Splits to export; all by default.")
    batch: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Encoded at once; 64 per CPU thread, 256 on a GPU."
    )
    processes: int = Field(1, ge=1, description="Worker processes (CPU); GPUs: torchrun.")
    on_outlier: Literal["error", "warn"] = Field("error", description="Latents far from their statistics.")
    captions_field: tuple[str, ...] = Field((CAPTIONS,), description="Foreign tars: field of captions; repeatable.")
    image_member: str = Field("", description="Foreign tars: member that is the picture, e.g. input.jpg.")
    caption_members: tuple[str, ...] = Field((), description="Foreign tars: member with captions; repeatable.")
    max_bad_share: float = Field(
        MAX_BAD_SHARE, ge=0, le=1, description="Foreign tars: more bad samples than this are an error."
    )

    @model_validator(mode="after")
    def _fits(self) -> ExportConfig:
        if self.what == "latents" and self.side != "image":
            raise ValueError(f"--side {self.side} is for embeddings; add --what embeddings")
        if self.prefixes and (self.what == "latents" or self.side == "text"):
            raise ValueError("--prefix is for image embeddings; latents are written whole, any prefix is a slice")
        if len(set(self.prefixes)) < len(self.prefixes):
            raise ValueError(f"--prefix names a length twice: {', '.join(map(str, self.prefixes))}")
        assert self.fields, "they fit each other, or this has raised"
        return self

    @property
    def fields(self) -> Fields:
        """How foreign tars are read."""
        captions = self.captions_field[0] if len(self.captions_field) == 1 else self.captions_field
        named = {"image_member": self.image_member, "caption_members": self.caption_members}
        return Fields.parse({"captions": captions, **named}, "options")

    @property
    def tables(self) -> tuple[Table, ...]:
        if self.what == "latents":
            return ("latents",)
        sides: dict[str, tuple[Table, ...]] = {"image": ("images",), "text": ("texts",), "both": ("images", "texts")}
        return sides[self.side]

    def format_of(self, out: Path) -> Format:
        """The named format, else that of OUT: a .parquet file, or a folder of what `what` is usually kept as."""
        usual: Format = "webdataset" if self.what == "latents" else "parquet"
        return self.format or ("parquet" if is_single_file(out) else usual)

    def check_out(self, out: Path) -> None:
        """Raises ConfigError when OUT cannot be what the settings ask for."""
        if out.suffix in _OTHER_FILES:
            raise ConfigError(f"{out}: name a folder, or a file ending in .parquet; `--format` says what it holds")
        if not is_single_file(out):
            return
        if self.format not in (None, "parquet"):
            raise ConfigError(f"{out}: a .parquet file cannot hold --format {self.format}; name a folder")
        if len(self.tables) > 1:
            raise ConfigError(
                f"{out}: one Parquet file holds one table; name a folder for --side both, or choose image or text"
            )


def is_single_file(out: Path) -> bool:
    return out.suffix == _SINGLE_FILE
