"""Folders of Parquet, NumPy or tar parts that an export wrote: one part per shard of pictures, and dataset.json.

A part is its files plus `STEM.index.json`, which is renamed into place last: with a matching index it is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from data_pipelines.shards.manifest import FILE, SCHEMA_VERSION, Count, FileName, Sha256
from seqtok_core.foundation import faults
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import atomic_write, read_json, sha256_file, write_json
from seqtok_core.foundation.fingerprint import canonical_json

PART_VERSION = 1
Format = Literal["webdataset", "parquet", "numpy"]


class FileInfo(Config):
    bytes: Count
    sha256: Sha256


class PartInfo(Config):
    """One part: rows are pictures, or captions on the text side."""

    index: FileName
    index_sha256: Sha256
    rows: Count
    files: Mapping[FileName, FileInfo]


class ExportManifest(Config):
    """All of an export's `dataset.json`, but for latents as tars: those have the Manifest that training reads."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["latents", "embeddings"]
    format: Format
    name: str
    fingerprints: Mapping[str, Any]  # tokenizer_id, captions_sha256, data, format_version
    shapes: Mapping[str, tuple[int, ...]]  # table -> shape of a row: (K, D), (prefixes, E) or (E,)
    tables: Mapping[str, Mapping[str, tuple[PartInfo, ...]]]  # latents, images or texts -> split -> parts
    prefixes: tuple[int, ...] = ()
    latent_spec: Mapping[str, Any] | None = None
    check: Mapping[str, Any] = {}
    source: Mapping[str, Any] = {}

    def rows(self, table: str, split: str) -> int:
        return sum(part.rows for part in self.tables[table][split])


def commit_part(
    folder: Path, stem: str, files: Mapping[str, bytes], *, rows: int, task: str, facts: Mapping[str, Any]
) -> None:
    """Write {name: content} and then the part's index. `task` names the work that the part is the result of."""
    hashes = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    faults.hit("parts.before_files")
    for name, data in files.items():
        with atomic_write(folder / name) as stream:
            stream.write(data)
            faults.hit("parts.before_rename")
    faults.hit("parts.before_index")
    content = {
        "schema_version": PART_VERSION,
        "part": stem,
        "rows": rows,
        "files": hashes,
        "task": task,
        "facts": dict(facts),
    }
    with atomic_write(folder / index_of(stem)) as stream:
        stream.write(canonical_json(content).encode() + b"\n")
    faults.hit("parts.after_index")


def is_part_done(folder: Path, stem: str, task: str) -> bool:
    """Whether the part is there, whole, and the result of this task. Reads all of it."""
    try:
        index = read_part(folder, stem)
    except DataError:
        return False
    return index["task"] == task and not part_faults(folder, part_info(folder, stem))


def part_info(folder: Path, stem: str) -> PartInfo:
    index = read_part(folder, stem)
    known = {"index": index_of(stem), "index_sha256": sha256_file(folder / index_of(stem))}
    return PartInfo.parse({**known, "rows": index["rows"], "files": index["files"]}, index_of(stem))


def part_faults(folder: Path, info: PartInfo) -> list[str]:
    """What is wrong with a part's files: missing, of another size, of another hash."""
    found = []
    sidecar = folder / info.index
    if not sidecar.is_file():
        found.append(f"{sidecar}: index is missing; export the part again")
    elif sha256_file(sidecar) != info.index_sha256:
        found.append(f"{sidecar}: not the index that dataset.json names; export the part again")
    for name, expected in info.files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: file is missing; copy or export it again")
        elif path.stat().st_size != expected.bytes:
            found.append(f"{path}: has {path.stat().st_size} bytes instead of {expected.bytes}")
        elif sha256_file(path) != expected.sha256:
            found.append(f"{path}: content differs from its hash in {info.index}")
    return found


def read_part(folder: Path, stem: str) -> dict[str, Any]:
    """The part's index. Raises DataError when it is missing, damaged or belongs to another part."""
    path = Path(folder) / index_of(stem)
    index = read_json(path)
    known = {"schema_version", "part", "rows", "files", "task", "facts"}
    if not isinstance(index, dict) or set(index) != known or index["schema_version"] != PART_VERSION:
        raise DataError(f"{path}: not the index of an exported part of version {PART_VERSION}")
    if index["part"] != stem:
        raise DataError(f"{path}: belongs to {index['part']!r}, not to {stem}")
    return index


def index_of(stem: str) -> str:
    return f"{stem}.index.json"


def is_export(folder: Path) -> bool:
    """Whether dataset.json is that of an export of this kind."""
    path = Path(folder) / FILE
    if not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and "tables" in content and "fingerprints" in content


def read_export(folder: Path) -> ExportManifest:
    """Raises DataError when dataset.json is missing or damaged."""
    path = Path(folder) / FILE
    try:
        return ExportManifest.parse(read_json(path), str(path))
    except ConfigError as error:
        raise DataError(str(error)) from None


def write_export(folder: Path, manifest: ExportManifest) -> None:
    write_json(Path(folder) / FILE, manifest.model_dump(mode="json"))
