"""Existing webdataset shards as a source: read where they lie, without unpacking."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.packed import parts_of, starts_of
from data_pipelines.packed_samples import PackedSamples
from data_pipelines.records import (
    CAPTION_FIELDS,
    TEXT,
    Fields,
    captions_of,
    columns_of,
    labels_of,
    level_names,
    levels_made,
)
from data_pipelines.sources import Bad, Facts, Pair
from data_pipelines.tar_index import Span, TarSample, scan_tar
from seqtok_core.foundation.errors import DataError

IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp", "gif", "bmp")
SPLITS = ("train", "val", "test")
OnBadShard = Literal["error", "skip"]
_SPLIT_ALIASES = {"valid": "val", "validation": "val", "dev": "val", "eval": "val", "training": "train"}


@dataclass(frozen=True, eq=False)
class TarSource:
    """Samples of some tars, in file order. `skipped` names the shards that were left out as damaged."""

    shards: tuple[Path, ...]
    samples: tuple[PackedSamples, ...]  # of each shard
    fields: Fields
    skipped: tuple[str, ...] = ()
    kind: str = "tars"

    def __len__(self) -> int:
        return int(self._starts[-1])

    def names(self, start: int, stop: int) -> Iterator[str]:
        for _, samples, begin, end in self._pieces(start, stop):
            yield from (samples.key(index) for index in range(begin, end))

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for handle, path, sample in self._opened(start, stop):
            found = self._describe(handle, path, sample)
            extension = image_extension(sample)
            if isinstance(found, Bad) or extension is None:
                yield found if isinstance(found, Bad) else _no_picture(path, sample)
                continue
            data = read_span(handle, sample.members[extension])
            yield Pair(image=data, captions=found[0], labels=found[1], source=f"{path.name}:{sample.key}")

    def records(self, start: int, stop: int) -> Iterator[Mapping[str, Any] | Bad]:
        """The record of each sample, without its picture; `__key__` is its key."""
        for handle, path, sample in self._opened(start, stop):
            try:
                yield {**read_record(handle, sample, self.fields), "__key__": sample.key}
            except DataError as error:
                yield Bad(f"{path.name}:{sample.key}", str(error))

    def described(self, shard: int) -> Iterator[tuple[tuple[str, ...], dict[str, int | str]] | Bad]:
        """(captions, labels) of every sample of a shard, or why it cannot be used; pictures are not read."""
        path = self.shards[shard]
        with open(path, "rb") as stream:
            for index in range(len(self.samples[shard])):
                yield self._describe(stream.fileno(), path, self.samples[shard][index])

    def identity(self) -> dict[str, Any]:
        shards = {path.name: path.stat().st_size for path in self.shards}
        fields = self.fields.model_dump(mode="json")
        return {"kind": self.kind, "shards": shards, "fields": fields, "skipped_shards": len(self.skipped)}

    def facts(self) -> Facts:
        return Facts(level_names=level_names(self.fields), levels_made=levels_made(self.fields))

    def _opened(self, start: int, stop: int) -> Iterator[tuple[int, Path, TarSample]]:
        """(open file, its path, sample) for each of [start, stop); one file is open at a time."""
        for path, samples, begin, end in self._pieces(start, stop):
            with open(path, "rb") as stream:
                for index in range(begin, end):
                    yield stream.fileno(), path, samples[index]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[Path, PackedSamples, int, int]]:
        """(shard, its samples, first, end) for each shard that [start, stop) touches."""
        for number, begin, end in parts_of(self._starts, start, stop):
            yield self.shards[number], self.samples[number], begin, end

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return starts_of(map(len, self.samples))

    def _describe(
        self, handle: int, path: Path, sample: TarSample
    ) -> tuple[tuple[str, ...], dict[str, int | str]] | Bad:
        if image_extension(sample) is None:
            return _no_picture(path, sample)
        try:
            record = read_record(handle, sample, self.fields)
            return captions_of(record, self.fields), labels_of(record, self.fields)
        except DataError as error:
            return Bad(f"{path.name}:{sample.key}", str(error))


def tar_sources(
    path: Path, fields: Fields, on_bad_shard: OnBadShard = "error", rest: str = "train"
) -> dict[str, TarSource]:
    """One source per split of a folder of tars (or one tar); a name that says none is of the split `rest`.

    Raises DataError when there is no tar.
    """
    found = find_tars(path, rest)
    return {split: tar_source(shards, fields, on_bad_shard) for split, shards in found.items()}


def tar_source(shards: Sequence[Path], fields: Fields, on_bad_shard: OnBadShard = "error") -> TarSource:
    """Scans every shard once. A damaged one is an error, or left out and named in `skipped`."""
    kept: list[Path] = []
    skipped: list[str] = []
    samples: list[PackedSamples] = []
    for path in shards:
        try:
            found = PackedSamples(scan_tar(path))
        except DataError as error:
            if on_bad_shard == "error":
                raise
            skipped.append(str(error))
            continue
        kept.append(path)
        samples.append(found)
    if not any(map(len, samples)):
        raise DataError(f"{shards[0].parent}: no samples in {len(shards)} shard(s); damaged: {len(skipped)}")
    return TarSource(tuple(kept), tuple(samples), fields, tuple(skipped))


def find_tars(path: Path, rest: str = "train") -> dict[str, list[Path]]:
    """Split -> its tars in order of their names. The split is a word of the name, else `rest`."""
    path = Path(path)
    tars = [path] if path.is_file() else sorted(p for p in path.glob("*.tar") if p.is_file())
    if not tars:
        raise DataError(f"{path}: no *.tar there")
    splits: dict[str, list[Path]] = {}
    for tar in tars:
        splits.setdefault(split_of(tar.name, rest), []).append(tar)
    return splits


def split_of(name: str, rest: str = "train") -> str:
    """The last word of a file's name that is one of a split; `rest` where there is none."""
    for word in reversed(re.split(r"[^A-Za-z]+", name.rpartition(".")[0].lower())):
        word = _SPLIT_ALIASES.get(word, word)
        if word in SPLITS:
            return word
    return rest


def image_extension(sample: TarSample) -> str | None:
    return next((e for e in IMAGE_EXTENSIONS if e in sample.members), None)


def read_span(handle: int, span: Span) -> bytes:
    """Raises DataError when the file is shorter than its index says."""
    data = os.pread(handle, span[1], span[0])
    if len(data) != span[1]:
        raise DataError(f"shard ends at byte {span[0] + len(data)}, {span[1] - len(data)} bytes too early")
    return data


def read_record(handle: int, sample: TarSample, fields: Fields) -> dict[str, Any]:
    """KEY.json, with KEY.txt as its field `txt` where the captions may come from there, KEY.cls as `cls`.

    Where there is no KEY.json, KEY.txt stands for the field that captions are asked of. Raises DataError.
    """
    return parse_record(sample.members, lambda extension: read_span(handle, sample.members[extension]), fields)


def parse_record(members: Collection[str], content: Callable[[str], bytes], fields: Fields) -> dict[str, Any]:
    """As `read_record`; `content` gives the bytes of one of the `members`."""
    record: Any = {}
    if "json" in members:
        try:
            record = json.loads(content("json"))
        except (ValueError, RecursionError):
            raise DataError("KEY.json is not JSON") from None
        if not isinstance(record, dict):
            raise DataError("KEY.json is not an object")
    for extension in (TEXT, "cls"):
        if extension in members and _is_wanted(extension, record, members, fields):
            try:
                record[extension] = content(extension).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise DataError(f"KEY.{extension} is not UTF-8") from None
    if TEXT in record and "json" not in members and not fields.default_captions:
        record.setdefault(fields.caption_fields[0] if fields.caption_fields else TEXT, record[TEXT])
    return record


def _is_wanted(extension: str, record: dict[str, Any], members: Collection[str], fields: Fields) -> bool:
    if extension != TEXT:
        return extension in fields.labels
    if fields.default_captions:
        return not any(record.get(name) is not None for name in CAPTION_FIELDS)
    return "json" not in members or TEXT in columns_of(fields)


def _no_picture(path: Path, sample: TarSample) -> Bad:
    return Bad(f"{path.name}:{sample.key}", "no picture", f"members {sorted(sample.members)}")
