"""Tars that were not written by us: what a manifest would say is found by one scan, held in memory only."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.sources.base import Bad, OnBadSample
from data_pipelines.sources.records import Fields
from data_pipelines.sources.tar_source import TarSource, lost_to_dots, tar_source
from data_pipelines.tars.index import OnBadShard, PackedSamples, TarSample
from data_pipelines.tars.names import find_tars
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError

_NAMED = 5  # bad samples that a warning names; all are counted
_WAY_OUT = "mend them, let `prepare()` make shards of what is good"


@dataclass(frozen=True)
class ForeignRule:
    """How tars are read that nobody has checked before: as `prepare()` does it, what is bad is counted and limited."""

    fields: Fields
    on_bad_shard: OnBadShard
    on_bad_sample: OnBadSample
    max_bad_share: float


@dataclass
class Found:
    """One split of a foreign folder. Classes are collected over all its splits: a word has one number."""

    shards: list[tuple[Path, PackedSamples]]
    skipped: tuple[str, ...]
    fingerprint: str
    levels: int = 0
    dropped: list[Bad] = field(default_factory=list)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def scan_foreign(folder: Path, split: str, rule: ForeignRule) -> Found:
    """Raises DataError when the split is not there, no sample of it has a picture and captions, or too many are bad."""
    tars = find_tars(folder)
    if split not in tars:
        raise DataError(f"{folder}: no split {split!r} among its tars; there are {', '.join(sorted(tars))}")
    words: dict[str, set[str]] = {label: set() for label in rule.fields.labels}
    found = _read_split(_source(folder, tars[split], rule), words)
    if rule.fields.labels:
        for other in sorted(set(tars) - {split}):
            _read_split(_source(folder, tars[other], rule), words)
    _judge(f"{folder}: split {split!r}", found, rule)
    if not found.levels:
        asked = " or ".join(rule.fields.caption_members or rule.fields.caption_fields)
        what = "members" if rule.fields.caption_members else "the field"
        raise DataError(f"{folder}: no sample of split {split!r} has captions in {what} {asked!r}")
    found.classes = {label: tuple(sorted(seen)) for label, seen in words.items() if seen}
    return found


def _source(folder: Path, shards: list[Path], rule: ForeignRule) -> TarSource:
    root = folder if folder.is_dir() else None
    return tar_source(shards, rule.fields, rule.on_bad_shard, root, whole_names=False)


def _judge(place: str, found: Found, rule: ForeignRule) -> None:
    """Raises DataError for more bad samples than allowed, naming the first; else a warning counts and names them."""
    bad = found.dropped
    if not bad:
        return
    kept = sum(len(samples) for _, samples in found.shards)
    counts = ", ".join(f"{reason}: {count}" for reason, count in Counter(item.reason for item in bad).most_common())
    said = f"{place}: {len(bad)} of {kept + len(bad)} samples are bad ({counts})"
    if not kept or rule.on_bad_sample == "error":
        way_out = "; `on_bad_sample=skip` reads the others" if kept else ""
        raise DataError(f"{said}; first: {bad[0]}; {_WAY_OUT}{way_out}")
    if len(bad) > rule.max_bad_share * (kept + len(bad)):
        raise DataError(
            f"{said}; first: {bad[0]}; allowed share: {rule.max_bad_share:g}; {_WAY_OUT}, or allow a larger "
            "share (`max_bad_share`)"
        )
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    warnings.warn(f"{said} and left out: {', '.join(map(str, bad[:_NAMED]))}{more}", stacklevel=2)


def _read_split(source: TarSource, words: dict[str, set[str]]) -> Found:
    """Adds the words of labels to `words`."""
    found = Found([], tuple(source.skipped.values()), fingerprint.of_value(source.identity()))
    for number, path in enumerate(source.shards):
        samples = PackedSamples(_usable(source, number, found, words))
        if number not in source.repeats.copies:
            found.shards.append((path, samples))
    return found


def _usable(source: TarSource, number: int, found: Found, words: dict[str, set[str]]) -> Iterator[TarSample]:
    """Samples of a shard with the keys that they have in the split; what is bad is added to `found.dropped`."""
    shard, prefix, copied = source.called(number), source.repeats.prefix(number), source.repeats.copies.get(number)
    for sample, content in source.described(number):
        lost = lost_to_dots(shard, sample, source.rule)
        found.dropped += lost
        if copied is not None:
            detail = f"the shard is a copy of {source.called(copied)}"
            found.dropped.append(Bad(f"{shard}:{sample.key}", "duplicate name", detail))
        elif isinstance(content, Bad):
            found.dropped += [] if lost else [content]
        else:
            captions, labels = content
            found.levels = max(found.levels, len(captions))
            for label, value in labels.items():
                words[label].update([value] if isinstance(value, str) else [])
            yield TarSample(prefix + sample.key, sample.members)
