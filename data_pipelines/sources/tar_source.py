"""Existing webdataset shards as a source: read where they lie, without unpacking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad, Described, Facts, Pair
from data_pipelines.sources.records import (
    Fields,
    labels_of,
    level_names,
    levels_made,
    picture_member,
    read_record,
    record_captions,
    text_members,
)
from data_pipelines.tars.index import OnBadShard, PackedSamples, TarSample, read_samples, read_span
from data_pipelines.tars.names import by_whole_names, find_tars, image_extension
from data_pipelines.tars.repeats import Repeats, find_repeats
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.packed import parts_of, starts_of

_IN_TURN = 2  # shards whose samples a copy in another process holds: a task may begin in one and end in the next


@dataclass(frozen=True)
class TarRule:
    """How members become samples. With `whole_names` dots in names are kept (`by_whole_names`), as prepare() does;
    without, a key ends at the first dot, as every reader of webdataset has it."""

    fields: Fields
    whole_names: bool = True

    def samples(self, path: Path, litter: list[str] | None = None) -> Iterator[TarSample]:
        for sample in read_samples(path, litter):
            yield from self.told_apart(sample) if self.whole_names else [sample]

    def told_apart(self, sample: TarSample) -> list[TarSample]:
        """Who names the member that is the picture has said what the dots are."""
        return [sample] if self.fields.image_member else by_whole_names(sample, text_members(self.fields))


class ShardSamples:
    """Samples by the number of their shard. A copy in another process holds none of them: it reads the headers of the
    shards that it is asked for again, so that memory does not grow with processes."""

    def __init__(self, paths: Sequence[Path], rule: TarRule, held: Mapping[int, PackedSamples]) -> None:
        self._paths, self._rule = tuple(paths), rule
        self._held, self._most = dict(held), len(paths)
        self.sizes = tuple(len(held[number]) for number in range(len(paths)))

    def __getitem__(self, number: int) -> PackedSamples:
        """Raises DataError when the shard has changed."""
        if number not in self._held:
            found = PackedSamples(self._rule.samples(self._paths[number]))
            if len(found) != self.sizes[number]:
                raise DataError(f"{self._paths[number]}: has changed: {len(found)} samples, not {self.sizes[number]}")
            while len(self._held) >= self._most:
                self._held.pop(next(iter(self._held)))
            self._held[number] = found
        return self._held[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}, "_most": _IN_TURN}


@dataclass(frozen=True, eq=False)
class TarSource:
    """Samples of some tars, in file order. `skipped` says of shards that were left out as damaged why; `litter` counts
    members that no sample is made of: a system left them there."""

    shards: tuple[Path, ...]
    samples: ShardSamples
    rule: TarRule
    repeats: Repeats = field(default_factory=Repeats)
    skipped: Mapping[str, str] = field(default_factory=dict)  # name -> message
    litter: int = 0
    dotted: int = 0  # samples that are told from others by what follows the first dot of their names
    root: Path | None = None  # the folder under which shards are named; None: their own
    kind: str = "tars"

    def __len__(self) -> int:
        return int(self._starts[-1])

    def names(self, start: int, stop: int) -> Iterator[str]:
        for number, begin, end in parts_of(self._starts, start, stop):
            samples, prefix = self.samples[number], self.repeats.prefix(number)
            yield from (prefix + samples.key(index) for index in range(begin, end))

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for handle, path, sample in self._opened(start, stop):
            found = self._describe(handle, path, sample)
            member = picture_member(sample.members, self.rule.fields)
            if isinstance(found, Bad) or member is None:
                yield found if isinstance(found, Bad) else no_picture(_called(path, self.root), sample)
                continue
            data = read_span(handle, sample.members[member])
            yield Pair(image=data, captions=found[0], labels=found[1], source=self._place(path, sample))

    def records(self, start: int, stop: int) -> Iterator[Mapping[str, Any] | Bad]:
        """The record of each sample, without its picture; `__key__` is its key."""
        for handle, path, sample in self._opened(start, stop):
            try:
                yield {**read_record(handle, sample, self.rule.fields), "__key__": sample.key}
            except DataError as error:
                yield Bad(self._place(path, sample), str(error))

    def described(self, shard: int) -> Iterator[tuple[TarSample, Described | Bad]]:
        """Every sample of a shard with its captions and labels, or why it cannot be used; pictures are not read."""
        path = self.shards[shard]
        with open(path, "rb") as stream:
            for sample in self.samples[shard]:
                yield sample, self._describe(stream.fileno(), path, sample)

    def identity(self) -> dict[str, Any]:
        names = [_called(path, self.root) for path in self.shards]
        shards = {name: path.stat().st_size for name, path in zip(names, self.shards, strict=True)}
        fields = self.rule.fields.model_dump(mode="json")
        copies = {names[number]: names[of] for number, of in self.repeats.copies.items()}
        found: dict[str, Any] = {"skipped": sorted(self.skipped)} if self.skipped else {}
        found |= {"left_aside": {"litter_of_a_system": self.litter}} if self.litter else {}
        found |= {"copies": copies} if copies else {}
        found |= {"shards_in_keys": True} if self.repeats.prefixes else {}
        found |= {"dots_in_keys": self.dotted} if self.dotted else {}
        return {"kind": self.kind, "shards": shards, "fields": fields, "skipped_shards": len(self.skipped), **found}

    def facts(self) -> Facts:
        fields = self.rule.fields
        return Facts(level_names=level_names(fields), levels_made=levels_made(fields))

    def _opened(self, start: int, stop: int) -> Iterator[tuple[int, Path, TarSample]]:
        """(open file, its path, sample) for each of [start, stop); one file is open at a time."""
        for number, begin, end in parts_of(self._starts, start, stop):
            path, samples = self.shards[number], self.samples[number]
            with open(path, "rb") as stream:
                for index in range(begin, end):
                    yield stream.fileno(), path, samples[index]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return starts_of(self.samples.sizes)

    def called(self, number: int) -> str:
        """A shard's name: its path under `root`."""
        return _called(self.shards[number], self.root)

    def _describe(self, handle: int, path: Path, sample: TarSample) -> Described | Bad:
        if picture_member(sample.members, self.rule.fields) is None:
            return no_picture(_called(path, self.root), sample)
        try:
            record = read_record(handle, sample, self.rule.fields)
            return record_captions(record, self.rule.fields), labels_of(record, self.rule.fields)
        except DataError as error:
            return Bad(self._place(path, sample), str(error))

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
    shards: Sequence[Path],
    fields: Fields,
    on_bad_shard: OnBadShard = "error",
    root: Path | None = None,
    *,
    whole_names: bool = True,
) -> TarSource:
    """Scans every shard once. A damaged one is an error, or left out and named in `skipped`."""
    if root is None and len({path.name for path in shards}) < len(shards):
        root = Path(os.path.commonpath([path.parent for path in shards]))
    rule = TarRule(fields, whole_names)
    kept: list[Path] = []
    skipped: dict[str, str] = {}
    litter: list[str] = []
    found: dict[int, PackedSamples] = {}
    for path in shards:
        try:
            found[len(kept)] = PackedSamples(rule.samples(path, litter))
        except DataError as error:
            if on_bad_shard == "error":
                raise
            skipped[_called(path, root)] = str(error)
            continue
        kept.append(path)
    if not any(map(len, found.values())):
        raise DataError(f"{shards[0].parent}: no samples in {len(shards)} shard(s); damaged: {len(skipped)}")
    names = [_called(path, root) for path in kept]
    dotted = sum(b"." in name.rpartition(b"/")[2] for samples in found.values() for name in samples.names())
    repeats = find_repeats(kept, list(found.values()), [name.removesuffix(".tar") for name in names])
    return TarSource(tuple(kept), ShardSamples(kept, rule, found), rule, repeats, skipped, len(litter), dotted, root)


def no_picture(shard: str, sample: TarSample) -> Bad:
    named = any(image_extension([name.rpartition(".")[2]]) for name in sample.members)
    hint = "; `fields.image_member` names it" if named else ""  # short: a message shows the ends of a long text
    return Bad(f"{shard}:{sample.key}", "no picture", f"members {sorted(sample.members)}{hint}")


def keys_lost_to_dots(sample: TarSample, rule: TarRule) -> list[str]:
    """Keys of the pictures that a reader of webdataset does not find: their names go on behind the first dot."""
    return [part.key for part in rule.told_apart(sample) if part.key != sample.key]


def lost_to_dots(shard: str, sample: TarSample, rule: TarRule) -> list[Bad]:
    """What is said of each of `keys_lost_to_dots`."""
    detail = f"webdataset's key ends at the first: {sample.key!r}; `prepare()` keeps such samples"
    return [Bad(f"{shard}:{key}", "dots in the name", detail) for key in keys_lost_to_dots(sample, rule)]


def _called(path: Path, root: Path | None) -> str:
    return path.name if root is None else path.relative_to(root).as_posix()
