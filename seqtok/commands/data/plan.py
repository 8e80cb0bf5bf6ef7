"""What `seqtok data prepare --dry-run` prints: the plan, and some samples as they would be written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from seqtok_core.foundation.errors import shown

if TYPE_CHECKING:
    from data_pipelines.prepare.preview import PreviewedSample
    from data_pipelines.prepare.settings import PrepareConfig
    from data_pipelines.sources.base import Source


_QUOTING = {
    "none": "a quote is a character like any other, every line a row",
    "backslash": "a backslash stands before quotes inside quotes",
}


def show_plan(out: Path, sources: Mapping[str, Source], config: PrepareConfig, shown: list[PreviewedSample]) -> None:
    console = Console()
    for line in [*_plan(out, sources, config, shown), *(line for item in shown for line in _sample(item))]:
        console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)


def left_out(sources: Mapping[str, Source]) -> Iterator[str]:
    """What --where left out of each split, by condition, and what a folder holds that is no sample."""
    for split, source in sorted(sources.items()):
        identity = source.identity()
        for what, count in _merged(identity, "left_aside").items():
            yield f"{split}: {count} left aside: {what.replace('_', ' ')}"
        for name in _listed(identity, "skipped"):
            yield f"{split}: shard {name} is damaged and left out with all its samples"
        for name, of in (pair for copies in _found(identity, "copies") for pair in copies.items()):
            yield f"{split}: shard {name} is a copy of {of}: its samples are duplicates"
        if any(_found(identity, "shards_in_keys")):
            yield f"{split}: keys start again in other shards: the shard's name is part of each"
        for part in identity.get("parts", ()):
            for reason, count in part.get("left_out", {}).items():
                yield f"{split}: {count} samples left out by {reason}"
            if "shuffled" in part:
                yield f"{split}: shuffled; --shuffle off keeps the order of the source"


def read_as(sources: Mapping[str, Source]) -> Iterator[str]:
    """What is not plain in how the records of each split are read."""
    for split, source in sorted(sources.items()):
        identity = source.identity()
        for quoting in sorted(set(_found(identity, "quoting"))):
            yield f"{split}: quoting is {quoting}: {_QUOTING[quoting]} (--quoting says another)"
        for rows in _found(identity, "grouped"):
            made = f"{rows['rows']} rows make {rows['samples']} samples"
            yield f"{split}: {made}: rows of one picture are one sample (--group none: they are not)"


def _found(identity: Any, key: str) -> Iterator[Any]:
    """What stands under `key`, in the source itself or in those that it is made of."""
    inner = identity.values() if isinstance(identity, Mapping) else identity if isinstance(identity, list) else ()
    if isinstance(identity, Mapping) and key in identity:
        yield identity[key]
    for value in inner:
        yield from _found(value, key)


def _listed(identity: Any, key: str) -> list[str]:
    return [name for names in _found(identity, key) for name in names]


def _merged(identity: Any, key: str) -> Counter[str]:
    return sum(map(Counter, _found(identity, key)), Counter())


def _plan(
    out: Path, sources: Mapping[str, Source], config: PrepareConfig, shown: list[PreviewedSample]
) -> Iterator[str]:
    from data_pipelines.prepare.preview import bytes_per_sample

    first = next(iter(sources.values()))
    yield f"kind: {first.kind}"
    identity, facts = first.identity(), first.facts()
    fields: Mapping[str, Any] = identity.get("fields", {})
    if fields.get("image"):
        key = fields.get("key") or "the picture's path or place in the table"
        yield f"picture: {fields['image']}; name: {key}; labels: {', '.join(fields['labels']) or 'none'}"
    if facts.levels_made:
        made, names = facts.levels_made["fields"], facts.level_names
        yield f"captions: {made if isinstance(made, str) else ', '.join(made)}; {facts.levels_made['order']}"
        if names:
            yield f"levels: {', '.join(names)}"
    for split, source in sorted(sources.items()):
        shards = -(-len(source) // config.samples_per_shard)
        size = bytes_per_sample(shown) * len(source)
        yield f"{out}: would write split {split}, {len(source)} samples in {shards} shards, about {_mebibytes(size)}"
    yield from read_as(sources)
    yield from left_out(sources)
    bad = sum(bool(item.problem) for item in shown)
    yield f"{len(shown)} samples of it, {bad} bad:"


def _sample(item: PreviewedSample) -> Iterator[str]:
    place = f"{item.split} {shown(item.source)}"
    yield f"{place}: {item.picture}" if item.picture else place
    if item.problem:
        yield f"  BAD: {item.problem}"
    for number, text in enumerate(item.captions):
        yield f"  {number} {text}"
    if item.labels:
        yield "  " + ", ".join(f"{name}={shown(value)}" for name, value in item.labels.items())
    if item.notes:
        yield "  (" + ", ".join(item.notes) + ")"


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
