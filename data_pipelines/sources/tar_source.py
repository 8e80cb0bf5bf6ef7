"""Existing webdataset shards as a source: read where they lie, without unpacking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad, Facts, Pair
from data_pipelines.sources.records import Fields, labels_of, level_names, levels_made, read_record, record_captions
from data_pipelines.tars.index import OnBadShard, PackedSamples, TarSample, read_span, scan_tar
from data_pipelines.tars.names import find_tars, image_extension
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.packed import parts_of, starts_of


@dataclass(frozen=True, eq=False)
class TarSource:
    """Samples of some tars, in file order. `skipped` says of shards that were left out as damaged why; `litter` counts
    members that no sample is made of: a system left them there."""

    shards: tuple[Path, ...]
    samples: tuple[PackedSamples, ...]  # of each shard
    fields: Fields
    skipped: Mapping[str, str] = field(default_factory=dict)  # name -> message
    litter: int = 0
    root: Path | None = None  # the folder under which shards are named; None: their own
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
                yield found if isinstance(found, Bad) else self._no_picture(path, sample)
                continue
            data = read_span(handle, sample.members[extension])
            yield Pair(image=data, captions=found[0], labels=found[1], source=self._place(path, sample))

    def records(self, start: int, stop: int) -> Iterator[Mapping[str, Any] | Bad]:
        """The record of each sample, without its picture; `__key__` is its key."""
        for handle, path, sample in self._opened(start, stop):
            try:
                yield {**read_record(handle, sample, self.fields), "__key__": sample.key}
            except DataError as error:
                yield Bad(self._place(path, sample), str(error))

    def described(self, shard: int) -> Iterator[tuple[tuple[str, ...], dict[str, int | str]] | Bad]:
        """(captions, labels) of every sample of a shard, or why it cannot be used; pictures are not read."""
        path = self.shards[shard]
        with open(path, "rb") as stream:
            for index in range(len(self.samples[shard])):
                yield self._describe(stream.fileno(), path, self.samples[shard][index])

    def identity(self) -> dict[str, Any]:
        shards = {_called(path, self.root): path.stat().st_size for path in self.shards}
        fields = self.fields.model_dump(mode="json")
        aside: dict[str, Any] = {"skipped": sorted(self.skipped)} if self.skipped else {}
        aside |= {"left_aside": {"litter_of_a_system": self.litter}} if self.litter else {}
        return {"kind": self.kind, "shards": shards, "fields": fields, "skipped_shards": len(self.skipped), **aside}

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
            return self._no_picture(path, sample)
        try:
            record = read_record(handle, sample, self.fields)
            return record_captions(record, self.fields), labels_of(record, self.fields)
        except DataError as error:
            return Bad(self._place(path, sample), str(error))

    def _no_picture(self, path: Path, sample: TarSample) -> Bad:
        return Bad(self._place(path, sample), "no picture", f"members {sorted(sample.members)}")

    def _place(self, path: Path, sample: TarSample) -> str:
        return f"{_called(path, self.root)}:{sample.key}"


def tar_sources(
    path: Path, fields: Fields, on_bad_shard: OnBadShard = "error", rest: str = "train"
) -> dict[str, TarSource]:
    """One source per split of a folder of tars (or one tar); a name that says none is of the split `rest`.

    Raises DataError when there is no tar.
    """
    found = find_tars(path, rest)
    root = path if path.is_dir() else None
    return {split: tar_source(shards, fields, on_bad_shard, root) for split, shards in found.items()}


def tar_source(
    shards: Sequence[Path], fields: Fields, on_bad_shard: OnBadShard = "error", root: Path | None = None
) -> TarSource:
    """Scans every shard once. A damaged one is an error, or left out and named in `skipped`."""
    kept: list[Path] = []
    skipped: dict[str, str] = {}
    litter: list[str] = []
    samples: list[PackedSamples] = []
    for path in shards:
        try:
            found = PackedSamples(scan_tar(path, litter))
        except DataError as error:
            if on_bad_shard == "error":
                raise
            skipped[_called(path, root)] = str(error)
            continue
        kept.append(path)
        samples.append(found)
    if not any(map(len, samples)):
        raise DataError(f"{shards[0].parent}: no samples in {len(shards)} shard(s); damaged: {len(skipped)}")
    return TarSource(tuple(kept), tuple(samples), fields, skipped, len(litter), root)


def _called(path: Path, root: Path | None) -> str:
    return path.name if root is None else path.relative_to(root).as_posix()
