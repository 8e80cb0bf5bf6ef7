"""captions.model: the tokenizer learned from the captions of a data set, kept beside its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.picture_reader import BadPictures
from data_pipelines.reading.streamed_record import members_read, read_streamed
from data_pipelines.shards.manifest import FILE as MANIFEST
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.sources.records import Fields
from data_pipelines.tars.stream import stream_samples
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.random_bits import STREAMED, fractions, philox

FILE = "captions.model"


@dataclass(frozen=True)
class TokenLengths:
    """Tokens per caption: choose max_tokens at the longest, or say what is cut."""

    mean: float
    p99: int
    longest: int


def captions_in(
    folder: Path, split: str, fields: Fields | None = None, max_bad_share: float = MAX_BAD_SHARE
) -> Iterator[tuple[str, ...]]:
    """Caption pyramids of a split in shard order: of pictures, latents or foreign tars."""
    own = (Path(folder) / MANIFEST).is_file()
    kind = read_manifest(folder).kind if own else "images"
    shards = open_shards(folder, split, fields, kind=kind, max_bad_share=max_bad_share)
    for index in range(len(shards)):
        yield shards.record(index).captions
    shards.close()


def captions_of_stream(
    names: Sequence[str], samples: int, fields: Fields, max_bad_share: float = MAX_BAD_SHARE
) -> Iterator[tuple[str, ...]]:
    """Caption pyramids of so many samples, or of all where there are fewer. Shards are read in a drawn order, each to
    its end, so that a stream that is sorted shows more than its beginning. Raises DataError for too many bad samples.
    """
    bad = BadPictures(samples, max_bad_share, instead="left out")
    for number in np.argsort(fractions(philox(0, STREAMED), len(names)), kind="stable").tolist():
        for key, members in stream_samples(names[number], members_read(fields)):
            for sample in read_streamed(names[number], key, members, fields, 0):
                if sample.image is None or sample.fault:
                    bad.count([f"{sample.place}: {sample.fault}"])
                    continue
                yield sample.captions
                samples -= 1
                if not samples:
                    return


def train_vocabulary(
    folder: Path,
    vocab_size: int,
    *,
    split: str = "train",
    path: Path | None = None,
    overwrite: bool = False,
    fields: Fields | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
) -> CaptionTokenizer:
    """Learn from all captions of a split and write `folder`/captions.model (or `path`).

    Raises DataError when another model is there already, which models may have been trained with.
    """
    pyramids = captions_in(Path(folder), split, fields, max_bad_share)
    return learn_vocabulary(pyramids, vocab_size, Path(path) if path else Path(folder) / FILE, overwrite)


def learn_vocabulary(
    pyramids: Iterable[tuple[str, ...]], vocab_size: int, path: Path, overwrite: bool = False
) -> CaptionTokenizer:
    """As `train_vocabulary`, of any caption pyramids."""
    tokenizer = CaptionTokenizer.train((text for pyramid in pyramids for text in pyramid), None, vocab_size)
    if path.is_file() and (path.name != FILE or not overwrite):
        there = CaptionTokenizer.load(path)  # raises DataError for somebody's file of another kind
        if there.sha256 != tokenizer.sha256 and not overwrite:
            raise DataError(f"{path}: holds another captions model; keep it, or replace it with `overwrite`")
    tokenizer.save(path)
    return tokenizer


def token_lengths(
    folder: Path,
    captions: CaptionTokenizer,
    split: str = "train",
    fields: Fields | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
) -> TokenLengths:
    """Over every caption of a split."""
    return lengths_of(captions_in(Path(folder), split, fields, max_bad_share), captions)


def lengths_of(pyramids: Iterable[tuple[str, ...]], captions: CaptionTokenizer) -> TokenLengths:
    """Over every caption. Raises DataError when there is none."""
    counts: Counter[int] = Counter()  # tokens -> captions, so that memory stays flat
    for pyramid in pyramids:
        counts.update(len(captions.encode(text)) for text in pyramid)
    if not counts:
        raise DataError("there are no captions")
    sizes = np.array(sorted(counts))
    below = np.cumsum([counts[int(size)] for size in sizes])
    mean = float(np.average(sizes, weights=[counts[int(size)] for size in sizes]))
    return TokenLengths(mean, int(sizes[np.searchsorted(below, 0.99 * below[-1])]), int(sizes[-1]))
