"""Pictures that lie as files in a folder: `captions.jsonl`, or a captions file in COCO's form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipelines.records import Fields, captions_of, labels_of
from data_pipelines.sources import Bad, Facts, Pair
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import read_json, sha256_file


@dataclass(frozen=True)
class FileRecord:
    """One line of a captions file; `problem` says why it cannot be used."""

    file_name: str  # relative to the folder of the pictures
    captions: tuple[str, ...] = ()
    labels: Mapping[str, int | str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class FileSource:
    """Pictures under `root` as a list of records says. `digest` is the captions file's sha256."""

    kind: str
    root: Path
    records: tuple[FileRecord, ...]
    digest: str
    options: str = ""  # whatever changes how the captions file is read

    def __len__(self) -> int:
        return len(self.records)

    def names(self, start: int, stop: int) -> Iterator[str]:
        for index, record in enumerate(self.records[start:stop], start):
            name = record.file_name
            yield str(PurePosixPath(name).with_suffix("")) if name else f"record-{index}"

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for record in self.records[start:stop]:
            yield self._read(record)

    def identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "captions_file": self.digest,
            "records": len(self),
            "options": self.options,
        }

    def facts(self) -> Facts:
        return Facts()

    def _read(self, record: FileRecord) -> Pair | Bad:
        if record.problem:
            return Bad(record.file_name, record.problem)
        path = PurePosixPath(record.file_name)
        if path.is_absolute() or ".." in path.parts:
            return Bad(record.file_name, "path leaves the folder")
        try:
            data = (self.root / path).read_bytes()
        except OSError as error:
            return Bad(record.file_name, "file cannot be read", error.strerror or str(error))
        return Pair(image=data, captions=record.captions, labels=record.labels, source=record.file_name)


def folder_source(folder: Path, fields: Fields) -> FileSource:
    """`folder`/captions.jsonl: one {"file_name": ..., "captions": [coarse ... fine], ...} per line."""
    path = Path(folder) / "captions.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    records = [_line(line, number, fields) for number, line in enumerate(lines, start=1) if line.strip()]
    if not records:
        raise DataError(f"{path}: holds no records")
    return FileSource("folder", Path(folder), tuple(records), sha256_file(path), fields.model_dump_json())


def coco_source(path: Path, images: Path | None = None) -> FileSource:
    """COCO captions JSON. A picture's captions are put in order of their number of words, shortest first.

    `images` is the folder of the pictures; by default that of the JSON, or an `images/` in or beside it.
    """
    path = Path(path)
    content = read_json(path)
    try:
        captions: dict[Any, list[str]] = {item["id"]: [] for item in content["images"]}
        strays = 0
        for note in content["annotations"]:
            if note["image_id"] in captions:
                captions[note["image_id"]].append(note["caption"].strip())
            else:
                strays += 1
        records = tuple(
            FileRecord(item["file_name"], tuple(sorted(captions[item["id"]], key=lambda t: len(t.split()))))
            for item in content["images"]
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not in the form of COCO captions ({error!r})") from None
    if not records:
        raise DataError(f"{path}: names no images")
    if strays == len(content["annotations"]):
        raise DataError(f"{path}: no annotation belongs to an image of this file")
    root = images or _find_images(path, records[0].file_name)
    return FileSource("coco", Path(root), records, sha256_file(path))


def _line(line: bytes, number: int, fields: Fields) -> FileRecord:
    try:
        record = json.loads(line)
        name = record["file_name"]
        if not isinstance(name, str) or not name or "\0" in name:
            raise DataError("file_name is not a name")
        return FileRecord(name, captions_of(record, fields), labels_of(record, fields))
    except (ValueError, KeyError, TypeError, RecursionError):
        return FileRecord(f"captions.jsonl line {number}", problem="not a record with a file_name")
    except DataError as error:
        return FileRecord(f"captions.jsonl line {number}", problem=str(error))


def _find_images(path: Path, first: str) -> Path:
    candidates = [path.parent, path.parent / "images", path.parent.parent / "images"]
    for folder in candidates:
        if (folder / first).is_file():
            return folder
    shown = ", ".join(str(folder) for folder in candidates)
    raise DataError(f"{path}: its first picture {first} is in none of {shown}; name the folder with --images")
