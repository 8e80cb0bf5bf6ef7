"""captions.model: the tokenizer learned from the captions of a data set, kept beside its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.shards.manifest import FILE as MANIFEST
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.records import Fields
from seqtok_core.foundation.errors import DataError

FILE = "captions.model"


@dataclass(frozen=True)
class TokenLengths:
    """Tokens per caption: choose max_tokens at the longest, or say what is cut."""

    mean: float
    p99: int
    longest: int


def captions_in(folder: Path, split: str, fields: Fields | None = None) -> Iterator[tuple[str, ...]]:
    """Caption pyramids of a split in shard order: of pictures, latents or foreign tars."""
    own = (Path(folder) / MANIFEST).is_file()
    shards = open_shards(folder, split, fields, kind=read_manifest(folder).kind if own else "images")
    for index in range(len(shards)):
        yield shards.record(index).captions
    shards.close()


def train_vocabulary(
    folder: Path,
    vocab_size: int,
    *,
    split: str = "train",
    path: Path | None = None,
    overwrite: bool = False,
    fields: Fields | None = None,
) -> CaptionTokenizer:
    """Learn from all captions of a split and write `folder`/captions.model (or `path`).

    Raises DataError when another model is there already, which models may have been trained with.
    """
    path = Path(path) if path else Path(folder) / FILE
    texts = (text for pyramid in captions_in(Path(folder), split, fields) for text in pyramid)
    tokenizer = CaptionTokenizer.train(texts, None, vocab_size)
    if path.is_file() and (path.name != FILE or not overwrite):
        there = CaptionTokenizer.load(path)  # raises DataError for somebody's file of another kind
        if there.sha256 != tokenizer.sha256 and not overwrite:
            raise DataError(f"{path}: holds another captions model; keep it, or replace it with `overwrite`")
    tokenizer.save(path)
    return tokenizer


def token_lengths(
    folder: Path, captions: CaptionTokenizer, split: str = "train", fields: Fields | None = None
) -> TokenLengths:
    """Over every caption of a split."""
    counts: Counter[int] = Counter()  # tokens -> captions, so that memory stays flat
    for pyramid in captions_in(Path(folder), split, fields):
        counts.update(len(captions.encode(text)) for text in pyramid)
    if not counts:
        raise DataError(f"{folder}: split {split!r} has no captions")
    sizes = np.array(sorted(counts))
    below = np.cumsum([counts[int(size)] for size in sizes])
    mean = float(np.average(sizes, weights=[counts[int(size)] for size in sizes]))
    return TokenLengths(mean, int(sizes[np.searchsorted(below, 0.99 * below[-1])]), int(sizes[-1]))
