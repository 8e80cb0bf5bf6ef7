"""What earlier versions lost in silence when they made a data set, as far as dataset.json and the indices tell it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.shards.manifest import Manifest, SplitInfo
from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.tars.index import TarSample
from data_pipelines.tars.names import by_whole_names

_AGAIN = "prepare the data set again"
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
