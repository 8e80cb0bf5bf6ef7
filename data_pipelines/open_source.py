"""A path that a user names -> sources by split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from data_pipelines.file_sources import coco_source, folder_source
from data_pipelines.records import Fields
from data_pipelines.sources import Source, split_by_name
from data_pipelines.tar_source import OnBadShard, tar_sources
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError

Kind = Literal["auto", "folder", "coco", "tars"]


class SourceConfig(Config):
    """How a path is read. Tars name their splits themselves; other sources become `split`, or are cut."""

    kind: Kind = "auto"
    split: Annotated[str, Field(pattern=r"^[a-z]{1,32}$")] = "train"
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.0  # cut off by a hash of the name
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    images: Path | None = None  # folder of the pictures of a COCO file
    fields: Fields = Fields()
    on_bad_shard: OnBadShard = "error"


def open_source(path: Path, config: SourceConfig) -> dict[str, Source]:
    """Raises DataError when nothing known is there."""
    path = Path(path)
    kind = detect_kind(path) if config.kind == "auto" else config.kind
    shares = {"val": config.val_share, "test": config.test_share}
    shares = {split: share for split, share in shares.items() if share}
    if kind == "tars":
        if shares or config.split != "train":
            raise ConfigError(f"{path}: the names of tars say their splits; leave out split and shares")
        return {**tar_sources(path, config.fields, config.on_bad_shard)}
    source: Source
    if kind == "coco":
        source = coco_source(path, config.images)
    else:
        source = folder_source(path, config.fields)
    return split_by_name(source, shares, config.split) if shares else {config.split: source}


def detect_kind(path: Path) -> Literal["folder", "coco", "tars"]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        kinds: dict[str, Literal["coco", "tars"]] = {".json": "coco", ".tar": "tars"}
        if path.suffix in kinds:
            return kinds[path.suffix]
    elif (path / "captions.jsonl").is_file():
        return "folder"
    elif any(path.glob("*.tar")):
        return "tars"
    raise DataError(
        f"{path}: not a source; known are a folder with captions.jsonl, a COCO captions .json, a .tar and a "
        "folder of tars"
    )
