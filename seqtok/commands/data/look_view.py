"""What `seqtok data inspect` and `verify` print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from seqtok_core.foundation.errors import shown

if TYPE_CHECKING:
    from data_pipelines.looking.inspect import Overview
    from data_pipelines.looking.inspect_split import Lengths, SplitOverview
    from data_pipelines.looking.verify import Verdict
    from data_pipelines.shards.parts import ExportManifest

_PROBLEMS_SHOWN = 20
_CAPTION_SHOWN = 100  # characters
_PIPE_WIDTH = 160


def show_overview(found: Overview) -> None:
    kind = f"{found.kind}, {found.image_size} px" if found.image_size else found.kind
    origin = "data set of seqtok" if found.own else "foreign tars"
    _say(f"{found.folder}: {origin}, {kind}, up to {found.levels} captions")
    _print(_splits(found.splits))
    for part in found.splits:
        _say(f"{part.split}: {part.looked_at} of {part.samples} samples looked at, evenly over the split")
        _show_pictures(part)
        _show_levels(part, found.level_names)
        _show_labels(part)
    _show_captions(found)
    for name, made in found.made.items():
        for line in _flat(made, {"levels": "levels made by", "source": "made from", "latents": "latents"}[name]):
            _say(line)


def _splits(parts: Iterable[SplitOverview]) -> Table:
    table = Table("split", "samples", "shards", "samples per shard", "MiB", "captions each", "dropped", "notes")
    for part in parts:
        low, high = part.shard_samples
        table.add_row(
            part.split,
            str(part.samples),
            str(part.shards),
            str(low) if low == high else f"{low} to {high}",
            f"{part.bytes / 2**20:.1f}",
            ", ".join(f"{n}: {count}" for n, count in part.captions_per_sample.items()),
            _counts(part.dropped) or "0",
            _counts(part.notes),
        )
    return table


def _show_pictures(part: SplitOverview) -> None:
    pictures = part.pictures
    if pictures is None:
        return
    sizes = ", ".join(f"{size}: {count}" for size, count in pictures.sizes)
    more = f", other sizes: {pictures.other_sizes}" if pictures.other_sizes else ""
    _say(f"  pictures: {sizes}{more}; {_counts(pictures.formats)}")
    _say(f"  bytes each: mean {pictures.mean_bytes:.0f}, largest {pictures.largest_bytes}")
    same = "; ".join(" = ".join(keys) for keys in pictures.equal_keys)
    _say(f"  equal to an earlier picture, byte for byte: {pictures.equal}{f' ({same})' if same else ''}")


def _show_levels(part: SplitOverview, names: tuple[str, ...]) -> None:
    columns = ["level", "captions", "distinct", "words", "characters", "tokens"]
    if not any(level.tokens for level in part.levels):
        columns.pop()  # there is no captions.model yet
    table = Table(*columns, title="captions; lengths as mean / 99 % / longest", title_justify="left")
    for number, level in enumerate(part.levels):
        table.add_row(
            f"{number} {names[number] if number < len(names) else ''}".strip(),
            str(level.captions),
            f"{level.distinct:.1%}",
            _lengths(level.words),
            _lengths(level.characters),
            *([_lengths(level.tokens)] if level.tokens else []),
        )
    _print(table)


def _show_labels(part: SplitOverview) -> None:
    for label, found in part.labels.items():
        missing = f", missing in {found.missing}" if found.missing else ""
        common = ", ".join(f"{shown(value)} {count}" for value, count in found.common)
        _say(f"  label {label}: {found.distinct} values{missing}; {common}")
    if part.record_fields:
        _say(f"  fields of the records: {', '.join(part.record_fields)}")


def _show_captions(found: Overview) -> None:
    _say("captions of the first sample, coarse to fine:")
    for text in found.splits[0].examples:
        _say(f"  {text}")
    _say("longest captions:")
    longest = [(n, part.split, key, level, text) for part in found.splits for key, level, n, text in part.longest]
    for n, split, key, level, text in sorted(longest, reverse=True)[:5]:
        shown = text if len(text) <= _CAPTION_SHOWN else text[: _CAPTION_SHOWN - 1] + "…"
        _say(f"  {n} characters, {split} {key}, level {level}: {shown}")


def show_export(folder: Path, manifest: ExportManifest) -> None:
    _say(f"{folder}: export of seqtok, {manifest.kind} of {manifest.name} as {manifest.format}")
    table = Table("table", "split", "parts", "rows", "one row", "MiB")
    for name, splits in manifest.tables.items():
        for split, parts in splits.items():
            size = sum(file.bytes for part in parts for file in part.files.values())
            shape = " x ".join(map(str, manifest.shapes[name]))
            rows = str(manifest.rows(name, split))
            table.add_row(name, split, str(len(parts)), rows, shape, f"{size / 2**20:.1f}")
    _print(table)
    if manifest.prefixes:
        _say(f"prefixes: {', '.join(map(str, manifest.prefixes))}")
    for line in [*_flat(manifest.fingerprints, "from"), *_flat(manifest.check, "check")]:
        _say(line)


def show_verdict(folder: Path, verdict: Verdict) -> None:
    for problem in verdict.problems[:_PROBLEMS_SHOWN]:
        _say(problem)
    left = verdict.faults - min(len(verdict.problems), _PROBLEMS_SHOWN)
    if left:
        _say(f"and {left} more")
    for note in verdict.notes:
        _say(f"note: {note}")
    state = f"{verdict.faults} problems" if verdict.faults else "all well"
    _say(f"{folder}: {verdict.shards} shards, {verdict.samples} samples: {state}")


def _print(table: Table) -> None:
    """A pipe has no width: tables are not squeezed there."""
    console = Console()
    (console if console.is_terminal else Console(width=_PIPE_WIDTH)).print(table)


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _lengths(found: Lengths) -> str:
    return f"{found.mean:.1f} / {found.p99} / {found.longest}"


def _flat(value: Any, name: str) -> list[str]:
    """Nested settings as lines `name.key: value`."""
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in _flat(item, f"{name}.{key}")]
    return [f"{name}: {value}"]
