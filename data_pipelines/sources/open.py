"""A path that a user names -> sources by split."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from data_pipelines.sources.base import Bad, Source
from data_pipelines.sources.derived.cut import (
    Subset,
    keep_in_all,
    parse_condition,
    split_by_folder,
    split_by_name,
)
from data_pipelines.sources.file_sources import CAPTIONS_FILE, coco_source, folder_source, picture_source
from data_pipelines.sources.folders.files import NO_DOWNLOAD
from data_pipelines.sources.folders.layout import TABLE_ENDINGS, kind_of_folder, split_folders
from data_pipelines.sources.records import Fields, check_fields
from data_pipelines.sources.tables.csv_form import Quoting
from data_pipelines.sources.tables.groups import group_rows
from data_pipelines.sources.tables.open_tables import (
    TableReading,
    is_arrow_folder,
    kind_of_json,
    lone_tables,
    open_tables,
)
from data_pipelines.sources.tables.splits import split_by_field, split_column
from data_pipelines.sources.tar_source import TarSource, tar_sources
from data_pipelines.sources.values import check_columns
from data_pipelines.tars.folders import OWN_FOLDER, by_split
from data_pipelines.tars.index import OnBadShard
from data_pipelines.tars.names import PACKED
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError

Kind = Literal[
    "auto", "folder", "pictures", "sidecar", "classes", "csv", "jsonl", "parquet", "json", "arrow", "coco", "tars"
]
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|pipe:")  # a Path has made one slash of two
_LOOKED_AT = 100  # records of tars whose fields are taken for those of all
_KNOWN = (
    "a folder with captions.jsonl, a folder of pictures with KEY.txt or KEY.json beside them, class folders, a .csv, "
    ".tsv, .jsonl or .parquet (or a folder of them), a .json or .txt of captions, a folder of Hugging Face's "
    "save_to_disk, a .tar and a folder of tars"
)


def _names_in(value: Any) -> Any:
    """Names may be divided by commas: no column is called with one."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    names = tuple(name.strip() for text in texts for name in text.split(","))
    twice = next((name for place, name in enumerate(names) if name in names[:place] or not name), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is the name of two columns" if twice else "a column has no name")
    return names


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
    quoting: Literal["auto", Quoting] = Field("auto", description="How a CSV file uses quotes.")
    columns: Annotated[tuple[str, ...], BeforeValidator(_names_in)] = Field(
        (), description="Names of a CSV's columns whose first line is a row: caption,file_name; repeatable."
    )
    group: Literal["rows", "none"] = Field("rows", description="rows: those of one picture are one sample.")
    split_field: str | None = Field(None, description="Field that says the split, by default split; '' for none.")
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
    by_field = any(isinstance(source, Subset) for source in found.values())
    who = "its records (`split_field` '' leaves that field aside)" if by_field else "the names of its files"
    if config.split is not None and len(found) == 1:
        found = {config.split: next(iter(found.values()))}
    if config.split is not None and config.split not in found:
        raise ConfigError(f"{path}: {who} say their splits ({', '.join(found)}); leave out `split`")
    sources: dict[str, Source] = keep_in_all(found, conditions) if conditions else {**found}
    if config.split is None and len(sources) == 1 and not by_field and (path / f"{OWN_FOLDER}.{kind}").is_file():
        sources = split_by_folder(next(iter(sources.values()))) or sources
    if config.group == "rows" and kind not in ("coco", "tars"):
        sources = group_rows(sources)
    return _cut(path, sources, config, who)


def detect_kind(path: Path) -> Kind:
    """Raises DataError when the path is none of the known kinds, or of several."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        kinds: dict[str, Kind] = {".tar": "tars", ".txt": "csv", **TABLE_ENDINGS}
        if path.suffix.lower() == ".json":
            return kind_of_json(path)
        if path.suffix.lower() in kinds:
            return kinds[path.suffix.lower()]
        if path.name.endswith(PACKED):
            return "tars"
        raise DataError(f"{path}: not a source; known are {_KNOWN}")
    if (path / CAPTIONS_FILE).is_file():
        return "folder"
    if is_arrow_folder(path):
        return "arrow"
    lone = lone_tables(path)
    kind = kind_of_folder(path, (lone[0][0], lone[1]) if lone else None)
    if kind is None:
        raise DataError(f"{path}: not a source; known are {_KNOWN}")
    return kind


def _refuse_unused(path: Path, kind: Kind, config: SourceConfig) -> None:
    """Options that a kind of source has no use for."""
    own = kind in ("tars", "pictures", "sidecar", "classes")
    given: dict[str, object] = {}
    given |= {"`fields.image`": config.fields.image, "`images`": config.images} if own else {}
    given |= {"`fields.key`": config.fields.key} if kind == "tars" else _members(config.fields)
    given |= {"`quoting`": config.quoting != "auto", "`columns`": config.columns} if kind != "csv" else {}
    if own or kind == "coco":
        given |= {"`split_field`": config.split_field is not None, "`group`": config.group != "rows"}
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
    if kind in ("csv", "jsonl", "parquet", "json", "arrow"):
        reading = {name: getattr(config, name) for name in ("fields", "images", "quoting", "columns", "split_field")}
        return open_tables(path, TableReading(kind=kind, also=also, rest=rest, **reading))
    if kind == "coco":
        names, _ = (path.is_dir() and lone_tables(path)) or ([""], kind)
        files = by_split(path, names, rest) if len(names) > 1 or "/" in names[0] else {rest: [path / names[0]]}
        return {split: coco_source(file, config.images, config.fields, also) for split, (file,) in files.items()}
    if kind == "folder":
        folder = folder_source(path, config.fields, config.images, also)
        column = split_column(config.split_field, folder.rows.columns(), str(path))
        any_word = config.split_field is not None
        return split_by_field(folder, column, rest, any_word=any_word) if column else {rest: folder}
    found = split_folders(path) or {rest: path}
    picture_kind: Any = "auto" if kind == "pictures" else kind
    return {split: picture_source(part, picture_kind, config.fields, also) for split, part in found.items()}


def _cut(path: Path, sources: dict[str, Source], config: SourceConfig, who: str) -> dict[str, Source]:
    shares = {"val": config.val_share, "test": config.test_share}
    shares = {split: share for split, share in shares.items() if share}
    if not shares:
        return sources
    if len(sources) > 1:
        raise ConfigError(f"{path}: {who} say their splits ({', '.join(sources)}); leave out the shares")
    split, source = next(iter(sources.items()))
    parts = split_by_name(source, shares, split)
    for empty in [name for name, part in parts.items() if not len(part)]:
        warnings.warn(
            f"{path}: none of its {len(source)} samples falls into split {empty}, which is left out", stacklevel=3
        )
        del parts[empty]
    return {**parts}


def _check_tar(source: TarSource, fields: Fields, also: tuple[str, ...]) -> None:
    columns: dict[str, None] = {}
    for record in source.records(0, min(len(source), _LOOKED_AT)):
        columns.update(dict.fromkeys(() if isinstance(record, Bad) else record))
    place = str(source.shards[0])
    check_fields(fields.model_copy(update={"image": "", "key": ""}), tuple(columns), place)
    check_columns([("`where`", name) for name in also], tuple(columns), place)
