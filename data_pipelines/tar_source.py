"""Existing webdataset shards as a source: read where they lie, without unpacking."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_pipelines.records import Fields, captions_of, labels_of
from data_pipelines.sources import Bad, Facts, Pair
from data_pipelines.tar_index import Span, TarSample, scan_tar
from seqtok_core.foundation.errors import DataError

IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp", "gif", "bmp")
SPLITS = ("train", "val", "test")
OnBadShard = Literal["error", "skip"]
_SPLIT_ALIASES = {"valid": "val", "validation": "val", "dev": "val", "eval": "val", "training": "train"}


@dataclass(frozen=True)
class TarSource:
    """Samples of some tars, in file order. `skipped` names the shards that were left out as damaged."""

    shards: tuple[Path, ...]
    samples: tuple[tuple[int, TarSample], ...]  # (number of the shard, sample)
    fields: Fields
    skipped: tuple[str, ...] = ()
    kind: str = "tars"

    def __len__(self) -> int:
        return len(self.samples)

    def names(self, start: int, stop: int) -> Iterator[str]:
        return (sample.key for _, sample in self.samples[start:stop])

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for number, sample in self.samples[start:stop]:
            yield self._read(self.shards[number], sample)

    def records(self) -> Iterator[tuple[tuple[str, ...], dict[str, int | str]] | Bad]:
        """(captions, labels) of every sample, or why it cannot be used; pictures are not read."""
        for number, sample in self.samples:
            with open(self.shards[number], "rb") as stream:
                yield self._describe(stream.fileno(), self.shards[number], sample)

    def identity(self) -> dict[str, Any]:
        shards = {path.name: path.stat().st_size for path in self.shards}
        fields = self.fields.model_dump(mode="json")
        return {"kind": self.kind, "shards": shards, "fields": fields, "skipped_shards": len(self.skipped)}

    def facts(self) -> Facts:
        return Facts()

    def _read(self, path: Path, sample: TarSample) -> Pair | Bad:
        with open(path, "rb") as stream:
            found = self._describe(stream.fileno(), path, sample)
            if isinstance(found, Bad):
                return found
            extension = image_extension(sample)
            assert extension is not None
            data = read_span(stream.fileno(), sample.members[extension])
        return Pair(image=data, captions=found[0], labels=found[1], source=f"{path.name}:{sample.key}")

    def _describe(
        self, handle: int, path: Path, sample: TarSample
    ) -> tuple[tuple[str, ...], dict[str, int | str]] | Bad:
        place = f"{path.name}:{sample.key}"
        if image_extension(sample) is None:
            return Bad(place, "no picture", f"members {sorted(sample.members)}")
        try:
            record = read_record(handle, sample, self.fields)
            return captions_of(record, self.fields), labels_of(record, self.fields)
        except DataError as error:
            return Bad(place, str(error))


def tar_sources(path: Path, fields: Fields, on_bad_shard: OnBadShard = "error") -> dict[str, TarSource]:
    """One source per split of a folder of tars (or one tar). Raises DataError when there is none."""
    found = find_tars(path)
    return {split: tar_source(shards, fields, on_bad_shard) for split, shards in found.items()}


def tar_source(shards: Sequence[Path], fields: Fields, on_bad_shard: OnBadShard = "error") -> TarSource:
    """Scans every shard once. A damaged one is an error, or left out and named in `skipped`."""
    kept: list[Path] = []
    skipped: list[str] = []
    samples: list[tuple[int, TarSample]] = []
    for path in shards:
        try:
            found = scan_tar(path)
        except DataError as error:
            if on_bad_shard == "error":
                raise
            skipped.append(str(error))
            continue
        samples += [(len(kept), sample) for sample in found]
        kept.append(path)
    if not samples:
        raise DataError(f"{shards[0].parent}: no samples in {len(shards)} shard(s); damaged: {len(skipped)}")
    return TarSource(tuple(kept), tuple(samples), fields, tuple(skipped))


def find_tars(path: Path) -> dict[str, list[Path]]:
    """Split -> its tars in order of their names. The split is a word of the name, else "train"."""
    path = Path(path)
    tars = [path] if path.is_file() else sorted(p for p in path.glob("*.tar") if p.is_file())
    if not tars:
        raise DataError(f"{path}: no *.tar there")
    splits: dict[str, list[Path]] = {}
    for tar in tars:
        splits.setdefault(split_of(tar.name), []).append(tar)
    return splits


def split_of(name: str) -> str:
    for word in reversed(re.split(r"[^A-Za-z]+", name.rpartition(".")[0].lower())):
        word = _SPLIT_ALIASES.get(word, word)
        if word in SPLITS:
            return word
    return "train"


def image_extension(sample: TarSample) -> str | None:
    return next((e for e in IMAGE_EXTENSIONS if e in sample.members), None)


def read_span(handle: int, span: Span) -> bytes:
    """Raises DataError when the file is shorter than its index says."""
    data = os.pread(handle, span[1], span[0])
    if len(data) != span[1]:
        raise DataError(f"shard ends at byte {span[0] + len(data)}, {span[1] - len(data)} bytes too early")
    return data


def read_record(handle: int, sample: TarSample, fields: Fields) -> dict[str, Any]:
    """KEY.json; where it has no captions and KEY.txt exists, that text is the one caption."""
    record: Any = {}
    if "json" in sample.members:
        try:
            record = json.loads(read_span(handle, sample.members["json"]))
        except (ValueError, RecursionError):
            raise DataError("KEY.json is not JSON") from None
        if not isinstance(record, dict):
            raise DataError("KEY.json is not an object")
    if fields.captions not in record and "json" not in sample.members and "txt" in sample.members:
        text = read_span(handle, sample.members["txt"]).decode("utf-8", "replace")
        record[fields.captions] = text
    return record
