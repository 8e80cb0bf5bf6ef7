"""What a suite's figures allow to be said, and what not; written from the figures alone.

Two contestants differ where their intervals over seeds do not touch. With one seed nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seqtok.evaluation.ordering.table import FIXED, Column, Figure, Row, Summary

LEARNED, WITHOUT_TEXT = "text_on_every_prefix", "nested"
_LEAST = 3  # seeds from which "the same in each" says more than chance
# What is claimed of the learned order: columns, and in which words.
_CLAIMS = {
    "strict": "tells coarser levels before finer ones",
    "frechet_unguided": "is drawn nearer to real pictures (Fréchet distance, unguided)",
    "reader_unguided": "is drawn with everything right more often (unguided)",
    "reader": "is drawn with everything right more often (guided)",
    "states": "teaches the sequence model more, as probes of its hidden states read it",
}


def conclusions(rows: Sequence[Row], summary: Summary) -> list[str]:
    """Sentences, in the order in which they are read."""
    said = [_seeds(rows), *_reservations(rows, summary)]
    if LEARNED not in {row.name for row in rows}:
        return [*said, f"Without {LEARNED} among the contestants nothing is said of the learned order."]
    for kind, names in _kinds(rows).items():
        for key, words in _CLAIMS.items():
            figures = summary.figures.get(key, {})
            rivals = {name: figures[name] for name in names if name in figures}
            if LEARNED in figures and rivals:
                said.append(_held_against(words, figures[LEARNED], rivals, summary.columns[key], kind))
    said += _of_text(summary)
    return said


def _kinds(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Contestants that the learned order is held against, by what they are."""
    kinds: dict[str, list[str]] = {"fixed order": [], "one without captions": [], "other one with captions": []}
    for row in rows:
        if row.name != LEARNED:
            fixed = row.name in (*FIXED, "scales")
            kind = "other one with captions" if row.taught else "fixed order" if fixed else "one without captions"
            kinds[kind].append(row.name)
    return kinds


def _reservations(rows: Sequence[Row], summary: Summary) -> list[str]:
    """What makes figures worth less, whoever is among the contestants."""
    said: list[str] = []
    notes = {run.get("frechet", {}).get("note") for row in rows for run in row.runs} - {None}
    said += [f"Fréchet distances are not to be compared with others: {note}." for note in sorted(notes)]
    chosen = summary.judge.get("chosen", {}).get("split", "val")
    if chosen == "test":
        said.append(
            "How pictures are drawn was chosen on the test split: figures of drawn pictures are too good for all, and "
            "most for whom it was chosen."
        )
    elif chosen == summary.judge.get("pictures_split"):
        said.append(
            f"How pictures are drawn was chosen on the {chosen} split, where guided sets of pictures are judged, too: "
            "their Fréchet distances favour for whom it was chosen."
        )
    eyes = {run["hashes"]["eye"] for row in rows for run in row.runs if "hashes" in run}
    if len(eyes) > 1:
        said.append(
            f"{len(eyes)} eyes saw these pictures, trained alike on different machines: between seeds figures of "
            "pictures differ by that, too."
        )
    return said


def _seeds(rows: Sequence[Row]) -> str:
    counts = {len(row.runs) for row in rows}
    if counts == {1} or not counts:
        return "One seed each: there are no intervals, and nothing may be concluded from small differences."
    few = min(counts)
    return (
        f"{few} to {max(counts)} seeds each; those with one have no interval."
        if few == 1
        else f"At least {few} seeds each; intervals are of 95 %, over seeds."
    )


def _held_against(words: str, own: Figure, rivals: Mapping[str, Figure], column: Column, kind: str) -> str:
    name, best = max(rivals.items(), key=lambda item: column.better * item[1].mean)
    numbers = f"{_shown(own, column)} against {_shown(best, column)} of the best {kind}, {name}"
    if own.half is None or best.half is None:
        return f"Whether the learned order {words}: {numbers}; not decided, for want of seeds."
    if column.better * (own.mean - best.mean) <= 0:
        if (column.better > 0 and own.high < best.low) or (column.better < 0 and own.low > best.high):
            return f"The learned order loses: it does not show that it {words}: {numbers}."
        return f"The learned order is not ahead: nothing shows that it {words}: {numbers}."
    if not own.half and not best.half and min(own.seeds, best.seeds) < _LEAST:
        return f"Perhaps the learned order {words}, but {own.seeds} equal seeds are too few to say: {numbers}."
    apart = own.low > best.high if column.better > 0 else own.high < best.low
    if apart:
        return f"The learned order {words}: {numbers}."
    return f"Perhaps the learned order {words}, but the intervals touch: {numbers}."


def _of_text(summary: Summary) -> list[str]:
    """What the captions are worth, and what they cost."""
    said = []
    for key in summary.figures:
        if not key.startswith("area_") and not key.startswith("psnr_"):
            continue
        figures, column = summary.figures[key], summary.columns[key]
        if LEARNED not in figures or WITHOUT_TEXT not in figures:
            continue
        own, other = figures[LEARNED], figures[WITHOUT_TEXT]
        if own.half is None or other.half is None:
            continue
        if own.low > other.high:
            said.append(f"Text raises {column.title}: {_shown(own, column)} against {_shown(other, column)}.")
        elif own.high < other.low:
            said.append(f"Text costs {column.title}: {_shown(own, column)} against {_shown(other, column)}.")
    return said


def _shown(value: Figure, column: Column) -> str:
    scale, digits = (100, 1) if column.unit == "%" else (1, 2)
    half = "" if value.half is None else f" ± {value.half * scale:.{digits}f}"
    if value.half == 0:
        half = f" with each of {value.seeds} seeds"
    return f"{value.mean * scale:.{digits}f}{half}{' %' if column.unit == '%' else ''}"
