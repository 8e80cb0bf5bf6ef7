"""Does a finished data set hold all that its source holds, as the source is read today?

An earlier version may have lost samples without a word (tars behind the first end mark, rows behind a stray quote,
files of unusual endings), and what it never counted only the source can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_pipelines.shards.manifest import Manifest, read_manifest
from data_pipelines.sources.base import Source
from seqtok_core.foundation.errors import DataError

_AGAIN = "prepare the data set again"


def compare_with_source(folder: Path, sources: Mapping[str, Source]) -> list[str]:
    """`sources`: by split, opened with the options that the folder was made with -> how the two differ, a sentence a
    split; nothing where every sample of the source is in the folder or among those that were dropped by name. Raises
    DataError where the folder is no data set that was prepared."""
    own = read_manifest(folder)
    if own.kind != "images":
        raise DataError(f"{folder}: holds {own.kind}; it is compared by the data set that it was made of")
    found = []
    for split in sorted({*own.splits, *sources}):
        difference = _of_split(own, split, sources)
        if difference:
            found.append(f"{split}: {difference}; {_AGAIN}")
    return found


def _of_split(own: Manifest, split: str, sources: Mapping[str, Source]) -> str:
    if split not in own.splits:
        return f"the source has {len(sources[split])} samples, the data set has no such split"
    info = own.splits[split]
    dropped = sum(info.dropped.values())
    known, there = info.samples + dropped, len(sources[split]) if split in sources else None
    if there is None:
        return f"the data set has {info.samples} samples, the source as it is read today has no such split"
    if known == there:
        return ""
    held = f"{info.samples} samples and dropped {dropped}" if dropped else f"{info.samples} samples"
    return f"the source has {there} samples as it is read today, the data set has {held}"
