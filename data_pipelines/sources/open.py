"""A path that a user names -> sources by split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_pipelines.sources.base import Bad, Source
from data_pipelines.sources.cut import keep_in_all, parse_condition, split_by_name
from data_pipelines.sources.file_sources import (
    CAPTIONS_FILE,
    TABLE_ENDINGS,
    TableKind,
    coco_source,
    folder_source,
    picture_source,
    table_source,
)
from data_pipelines.sources.picture_folders import NO_DOWNLOAD, PICTURE_ENDINGS
from data_pipelines.sources.records import Fields, check_columns, check_fields
from data_pipelines.sources.tar_source import TarSource, tar_sources
from data_pipelines.tars.index import OnBadShard
from data_pipelines.tars.names import PACKED, split_of
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError

Kind = Literal["auto", "folder", "pictures", "sidecar", "classes", "csv", "jsonl", "parquet", "coco", "tars"]
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|pipe:")  # a Path has made one slash of two
_LOOKED_AT = 100  # records of tars whose fields are taken for those of all
_KNOWN = (
    "a folder with captions.jsonl, a folder of pictures with KEY.txt or KEY.json beside them, class folders, a .csv, "
    ".tsv, .jsonl or .parquet (or a folder of them), a COCO captions .json, a .tar and a folder of tars"
)


class SourceConfig(Config):
    """How a path is read. The names of tars and tables say their splits. `split` is that of files whose names do not,
    by default train, and of all where there is one split only: what is asked for counts more than a name."""

    kind: Kind = Field("auto", description="What the source is.")
    split: str | None = Field(
        None, pattern=r"^[a-z]{1,32}$", description="Split of what no file name gives one (train), or of all."
    )
    val_share: float = Field(0.0, ge=0, lt=1, description="Share cut off as split val, by a hash of the name.")
    test_share: float = Field(0.0, ge=0, lt=1, description="Share cut off as split test, by a hash of the name.")
    images: Path | None = Field(None, description="Folder of pictures, by default the table's.")  # nothing outside it
    fields: Fields = Fields()
    where: tuple[str, ...] = Field((), description="Only samples with e.g. label=dog,cat or width>=256; repeatable.")
    on_bad_shard: OnBadShard = Field("error", description="Damaged tars of the source.")


def open_source(path: Path, config: SourceConfig) -> dict[str, Source]:
    """Raises DataError when nothing known is there, ConfigError when the settings do not fit what is."""
    path = Path(path)
    if _REMOTE.match(str(path)):
        raise DataError(f"{path}: is not a local path; {NO_DOWNLOAD}, or mount it")
    kind = detect_kind(path) if config.kind == "auto" else config.kind
    _refuse_unused(path, kind, config)
    conditions = [parse_condition(text) for text in config.where]
    found = _open(path, kind, config, config.split or "train", tuple(condition.field for condition in conditions))
    if config.split is not None and len(found) == 1:
        found = {config.split: next(iter(found.values()))}
    if config.split is not None and config.split not in found:
        raise ConfigError(f"{path}: the names of its files say their splits ({', '.join(found)}); leave out `split`")
    sources: dict[str, Source] = keep_in_all(found, conditions) if conditions else {**found}
    return _cut(path, sources, config)


def detect_kind(path: Path) -> Kind:
    """Raises DataError when the path is none of the known kinds, or of several."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        kinds: dict[str, Kind] = {".json": "coco", ".tar": "tars", **TABLE_ENDINGS}
        if path.suffix.lower() in kinds:
            return kinds[path.suffix.lower()]
        if path.name.endswith(PACKED):
            return "tars"
        raise DataError(f"{path}: not a source; known are {_KNOWN}")
    if (path / CAPTIONS_FILE).is_file():
        return "folder"
    if any(entry.name.endswith((".tar", *PACKED)) for entry in path.iterdir()):
        return "tars"
    tables = sorted({TABLE_ENDINGS[table.suffix.lower()] for table in _tables(path)})
    if len(tables) > 1:
        raise DataError(f"{path}: holds tables of several kinds; name one with `kind` ({', '.join(tables)})")
    if tables:
        return tables[0]
    if any(entry.is_dir() or entry.suffix.lower() in PICTURE_ENDINGS for entry in path.iterdir()):
        return "pictures"
    raise DataError(f"{path}: not a source; known are {_KNOWN}")


def _refuse_unused(path: Path, kind: Kind, config: SourceConfig) -> None:
    """Options that a kind of source has no use for."""
    own = kind in ("tars", "pictures", "sidecar", "classes")
    given = {"`fields.image`": config.fields.image, "`images`": config.images} if own else {}
    given |= {"`fields.key`": config.fields.key} if kind == "tars" else _members(config.fields)
    unused = [option for option, value in given.items() if value]
    if unused:
        raise ConfigError(f"{path}: {', '.join(unused)} has no use for a source of kind {kind}; leave it out")


def _members(fields: Fields) -> dict[str, Any]:
    return {"`fields.image_member`": fields.image_member, "`fields.caption_members`": fields.caption_members}


def _open(path: Path, kind: Kind, config: SourceConfig, rest: str, also: tuple[str, ...]) -> Mapping[str, Any]:
    """`rest`: the split of what no name gives one."""
    if kind == "tars":
        sources = tar_sources(path, config.fields, config.on_bad_shard, rest)
        for source in sources.values():
            _check_tar(source, config.fields, also)
        return sources
    if kind in ("csv", "jsonl", "parquet"):
        return _open_tables(path, kind, config, rest, also)
    if kind == "coco":
        return {rest: coco_source(path, config.images, config.fields, also)}
    if kind == "folder":
        return {rest: folder_source(path, config.fields, config.images, also)}
    splits = _split_folders(path)
    found = splits or {rest: path}
    picture_kind: Any = "auto" if kind == "pictures" else kind
    return {split: picture_source(folder, picture_kind, config.fields, also) for split, folder in found.items()}


def _open_tables(
    path: Path, kind: TableKind, config: SourceConfig, rest: str, also: tuple[str, ...]
) -> Mapping[str, Any]:
    files = [path] if path.is_file() else [table for table in _tables(path) if TABLE_ENDINGS[_ending(table)] == kind]
    if not files:
        raise DataError(f"{path}: no table of kind {kind} there")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_of(file.name, rest), []).append(file)
    return {split: table_source(kind, part, config.fields, config.images, also) for split, part in splits.items()}


def _cut(path: Path, sources: dict[str, Source], config: SourceConfig) -> dict[str, Source]:
    shares = {"val": config.val_share, "test": config.test_share}
    shares = {split: share for split, share in shares.items() if share}
    if not shares:
        return sources
    if len(sources) > 1:
        raise ConfigError(f"{path}: its files say their splits ({', '.join(sources)}); leave out the shares")
    split, source = next(iter(sources.items()))
    return {**split_by_name(source, shares, split)}


def _tables(folder: Path) -> list[Path]:
    """In order of names; without what img2dataset writes about the shards in folders of the same names."""
    tables = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLE_ENDINGS and p.is_file())
    return [table for table in tables if not table.with_suffix("").is_dir() and not table.name.startswith(".")]


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _split_folders(path: Path) -> dict[str, Path]:
    """Folders called train, val, test (or as people call them), where there are no others."""
    folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    splits = {split_of(f"{folder.name}.", ""): folder for folder in folders}
    known = "" not in splits and len(splits) == len(folders)
    return splits if folders and known and all(re.fullmatch(r"[A-Za-z]+", f.name) for f in folders) else {}


def _check_tar(source: TarSource, fields: Fields, also: tuple[str, ...]) -> None:
    columns: dict[str, None] = {}
    for record in source.records(0, min(len(source), _LOOKED_AT)):
        columns.update(dict.fromkeys(() if isinstance(record, Bad) else record))
    place = str(source.shards[0])
    check_fields(fields.model_copy(update={"image": "", "key": ""}), tuple(columns), place)
    check_columns([("`where`", name) for name in also], tuple(columns), place)
