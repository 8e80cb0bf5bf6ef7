"""A run's work without the run: batches of its data set where that is there, random ones of the right shapes elsewhere.

Where the config's data folder exists, its first samples are read: how often captions repeat decides what a step
costs. Every assumption is said in the workload's `notes`. Shapes: B samples, L caption levels, T text tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.shards.manifest import read_manifest
from seqtok.runs.base import AssumedData, Workload, batch_rows
from seqtok_core.foundation.errors import DataError

LEVELS = 4  # of a caption pyramid that nobody has seen yet
_TOKENS = 16  # of its finest caption
_ASSUMED_VOCAB = 4096  # `seqtok data text` makes as many
_TIMED = 256  # samples, at least, that reading is timed on
_FIRST_CONTENT = 6  # ids below are special


def workload_of_data(
    objective: nn.Module,
    read: Callable[[int], Any],
    data: tuple[Path, str],
    config: ReadConfig,
    kept: int,
    rows: int,
    notes: list[str],
) -> Workload:
    """`read(count)` gives the first samples of the split `data` (folder, name), `kept` bytes each in memory."""
    folder, split = data
    found = read_manifest(folder).split(split, folder)
    if not found.samples:
        raise DataError(f"{folder}: split {split} is empty")
    count = min(found.samples, max(rows, _TIMED))
    began = time.perf_counter()
    whole = read(count)
    rate = count / max(time.perf_counter() - began, 1e-9)
    stored = sum(shard.bytes for shard in found.shards) // found.samples
    first = lambda size: batch_rows(whole, torch.arange(size) % len(whole))  # noqa: E731
    return Workload(objective, first, found.samples, kept, stored, rate, config, notes)


@dataclass(frozen=True)
class StandInVocabulary:
    """Stands for a captions model of which only the size is known."""

    vocab_size: int


def vocabulary_or_stand_in(path: Path, assumed: AssumedData, notes: list[str]) -> Any:
    if path.is_file() and assumed.vocab is None:
        return CaptionTokenizer.load(path)
    vocab = assumed.vocab or _ASSUMED_VOCAB
    notes.append(f"vocabulary of {vocab} pieces assumed ({path} is not there)")
    return StandInVocabulary(vocab)


def random_captions(count: int, levels: int, longest: int, vocab: int) -> dict[str, Any]:
    """Captions that never repeat, longer from level to level: at most `_TOKENS` and the loader's limit."""
    tokens = min(_TOKENS, longest)
    ids = torch.randint(
        _FIRST_CONTENT, max(vocab, _FIRST_CONTENT + 1), (count, levels, tokens), generator=seeded_generator(2)
    )
    for level in range(levels):
        ids[:, level, max(1, tokens * (level + 1) // levels) :] = 0
    return {
        "keys": [str(i) for i in range(count)],
        "index": torch.arange(count),
        "epoch": torch.zeros(count, dtype=torch.int64),
        "text_ids": ids,
        "level_mask": torch.ones(count, levels, dtype=torch.bool),
        "caption_ids": torch.arange(count * levels).reshape(count, levels),
    }


def seeded_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
