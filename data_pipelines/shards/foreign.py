"""Tars that were not written by us: what a manifest would say is found by one scan, held in memory only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.sources.base import Bad
from data_pipelines.sources.records import Fields
from data_pipelines.sources.tar_source import TarSource, tar_source
from data_pipelines.tars.index import OnBadShard, PackedSamples
from data_pipelines.tars.names import find_tars
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError


@dataclass
class Found:
    """One split of a foreign folder. Classes are collected over all its splits: a word has one number."""

    shards: list[tuple[Path, PackedSamples]]
    skipped: tuple[str, ...]
    fingerprint: str
    levels: int = 0
    dropped: tuple[Bad, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def scan_foreign(folder: Path, split: str, fields: Fields, on_bad_shard: OnBadShard) -> Found:
    """Raises DataError when the split is not there, or no sample of it has a picture and captions."""
    tars = find_tars(folder)
    if split not in tars:
        raise DataError(f"{folder}: no split {split!r} among its tars; there are {', '.join(sorted(tars))}")
    source = tar_source(tars[split], fields, on_bad_shard, folder)
    words: dict[str, set[str]] = {label: set() for label in fields.labels}
    found = _read_split(source, words)
    if fields.labels:
        for other in sorted(set(tars) - {split}):
            _read_split(tar_source(tars[other], fields, on_bad_shard, folder), words)
    if not any(len(samples) for _, samples in found.shards):
        raise DataError(f"{folder}: split {split!r} has no usable sample; first: {found.dropped[0]}")
    if not found.levels:
        asked = " or ".join(fields.caption_fields)
        raise DataError(f"{folder}: no sample of split {split!r} has captions in the field {asked!r}")
    found.classes = {label: tuple(sorted(seen)) for label, seen in words.items() if seen}
    return found


def _read_split(source: TarSource, words: dict[str, set[str]]) -> Found:
    """Adds the words of labels to `words`."""
    shards: list[tuple[Path, PackedSamples]] = []
    dropped: list[Bad] = []
    levels = 0
    for number, path in enumerate(source.shards):
        kept = []
        for index, content in enumerate(source.described(number)):
            if isinstance(content, Bad):
                dropped.append(content)
                continue
            captions, labels = content
            levels = max(levels, len(captions))
            for label, value in labels.items():
                words[label].update([value] if isinstance(value, str) else [])
            kept.append(source.samples[number][index])
        shards.append((path, PackedSamples(kept)))
    skipped, identity = tuple(source.skipped.values()), fingerprint.of_value(source.identity())
    return Found(shards, skipped, identity, levels, tuple(dropped))
