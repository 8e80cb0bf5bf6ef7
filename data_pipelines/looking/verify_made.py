"""What earlier versions lost in silence when they made a data set, as far as dataset.json and the indices tell it."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from data_pipelines.shards.manifest import Manifest, SplitInfo
from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.tars.index import TarSample
from data_pipelines.tars.names import by_whole_names

_AGAIN = "prepare the data set again"
_FIRST_WITH_ALL = "max_pixels"  # a setting that is as old as the reading of all that tars hold
_NUMBERED = re.compile(r"(.*?)([0-9]+)(\.tar)")
_SHOWN = 5  # names of missing shards
_NUMBER = re.compile(r"-?[0-9]+")


def made_with_loss(own: Manifest) -> tuple[list[str], list[str]]:
    """(problems, notes): what was lost without a name, and what was lost or changed as its maker was told."""
    problems, notes = [], []
    for split, info in sorted(own.splits.items()):
        source = own.source.get("splits", {}).get(split, {})
        named = source.get("skipped", [])
        notes += [f"{split}: shard {name} of the source was damaged and left out" for name in named]
        if source.get("skipped_shards", 0) > len(named):
            count = source["skipped_shards"] - len(named)
            problems.append(
                f"{split}: {count} damaged shards of the source were left out and nobody named them; {_AGAIN}"
            )
        notes += _many_dropped(split, info)
        notes += _unread_tars(split, source) if _FIRST_WITH_ALL not in own.source.get("config", {}) else ()
    for label, words in own.classes.items():
        moved = next(((w, n) for n, w in enumerate(words) if _NUMBER.fullmatch(w) and int(w) != n), None)
        if moved is None or not all(map(_NUMBER.fullmatch, words)):
            continue
        said = (
            f"label {label!r}: its words are numbers, numbered anew in the order of words: {moved[0]} became {moved[1]}"
        )
        if label == "cls":  # of tars: a number there is a number
            problems.append(f"{said}; {_AGAIN}")
        else:
            notes.append(said)
    return problems, notes


def _many_dropped(split: str, info: SplitInfo) -> Iterator[str]:
    bad = {reason: count for reason, count in info.dropped.items() if not reason.startswith("filtered")}
    count = sum(bad.values())
    if count > MAX_BAD_SHARE * (info.samples + count):
        listed = ", ".join(f"{reason}: {number}" for reason, number in bad.items())
        yield f"{split}: {count} of {info.samples + count} samples were dropped as bad ({listed})"


def _unread_tars(split: str, source: Mapping[str, Any]) -> Iterator[str]:
    """What an earlier version may not have read. How much, only the source knows: nothing of it was written down."""
    if source.get("kind") != "tars":
        return
    yield (
        f"{split}: made by an earlier version, which read the first alone of tars that were joined with cat, and no "
        ".tar.gz beside others; hold it against the tars that it was made from"
    )
    missing = _gaps(source.get("shards", {}))
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        yield f"{split}: its source has gaps where {', '.join(missing[:_SHOWN])}{more} would be"


def _gaps(names: Collection[str]) -> list[str]:
    """Names that are missing between numbered ones."""
    numbers: dict[tuple[str, int], set[int]] = {}  # what stands before, digits -> numbers
    for found in filter(None, map(_NUMBERED.fullmatch, names)):
        numbers.setdefault((found[1], len(found[2])), set()).add(int(found[2]))
    return [
        f"{before}{number:0{digits}d}.tar"
        for (before, digits), there in sorted(numbers.items())
        if max(there) - min(there) < 2 * len(there)  # else no numbering on end
        for number in range(min(there), max(there))
        if number not in there
    ]


def lost_to_one_key(dropped: Mapping[str, Any]) -> str:
    """What is wrong with a dropped sample of an index whose key held several; "" where it held one or nothing."""
    members = dropped.get("detail", "").removeprefix("members ").partition("; ")[0]
    if dropped.get("reason") != "no picture" or not members.startswith("["):
        return ""
    try:
        names = [str(name) for name in ast.literal_eval(members)]
    except (ValueError, SyntaxError):
        return ""
    pictures = sum(bool(part.key) for part in by_whole_names(TarSample("", dict.fromkeys(names, (0, 0)))))
    if not pictures:
        return ""
    return (
        f"{dropped.get('source')} was dropped as one sample without a picture and held {pictures}, whose names go on "
        f"behind a dot; {_AGAIN}"
    )
