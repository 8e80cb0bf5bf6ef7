"""What a plan is made for: the objective of a config and batches for it, with or without the data set.

Where the config's data folder exists, its first samples are read: how often captions repeat decides what a step
costs. Elsewhere batches are drawn in the right shapes, and every assumption is said in `notes`.
Shapes: B samples, L caption levels, T text tokens, K latents of D channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ar_model import GeneratorObjective, SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.latent_text import read_latents
from data_pipelines.samples import ImageTextBatch, LatentTextBatch
from data_pipelines.shards.manifest import FILE as MANIFEST
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer import LatentSpec, SeqTokenizer, TokenizerObjective
from seqtok.runs.generator import GeneratorRun
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.foundation.errors import ConfigError, DataError

_LEVELS, _TOKENS = 4, 16  # of a caption pyramid that nobody has seen yet
_ASSUMED_VOCAB = 4096  # `seqtok data text` makes as many
_TIMED = 256  # samples, at least, that reading is timed on
_FIRST_CONTENT = 6  # ids below are special


@dataclass(frozen=True)
class Assumed:
    """What the user says of data that is not there."""

    vocab: int | None = None  # pieces of the captions model
    latents: tuple[int, int] | None = None  # K, D
    samples: int | None = None


@dataclass
class Planned:
    """An objective, batches for it, and what is known of its data. Bytes are per sample."""

    objective: nn.Module
    batch: Callable[[int], Any]  # B -> batch of B samples
    samples: int | None
    kept_bytes: int  # in memory, where the loader keeps samples
    stored_bytes: int  # on the disk
    read_per_s: float | None  # samples that one process reads and decodes in a second; None: not measured
    notes: list[str] = field(default_factory=list)


def subject_of(run: TokenizerRun | GeneratorRun, assumed: Assumed, rows: int) -> Planned:
    """`rows`: samples of the largest batch that will be asked for. Raises ConfigError or DataError."""
    torch.manual_seed(run.train.seed)
    return _tokenizer(run, assumed, rows) if isinstance(run, TokenizerRun) else _generator(run, assumed, rows)


def _tokenizer(run: TokenizerRun, assumed: Assumed, rows: int) -> Planned:
    notes: list[str] = []
    model, size, config = run.model, run.model.image_size, run.data.loader
    words = _words(run.data.captions_path, assumed, notes)
    if model.text is not None:
        model = model.model_copy(update={"text": model.text.model_copy(update={"vocab_size": words.vocab_size})})
    objective = TokenizerObjective(SeqTokenizer(model), run.objective)
    kept = 3 * size**2
    folder = run.data.folder  # None: a stream, of which nothing is read for a plan
    if isinstance(words, CaptionTokenizer) and folder is not None and (folder / MANIFEST).is_file():
        read = lambda count: read_split(folder, run.data.split, words, count, config)  # noqa: E731
        return _of_data(objective, read, folder, run.data.split, rows, kept, notes)
    levels = len(run.objective.level_starts or ()) or config.levels or _LEVELS
    notes.append(f"no data read from {run.data.name}: random pictures, {levels} caption levels that never repeat")

    def batch(count: int) -> ImageTextBatch:
        images = torch.randint(0, 256, (count, 3, size, size), generator=_dice(1), dtype=torch.uint8)
        return ImageTextBatch(images=images, **_captions(count, levels, config.max_tokens, words.vocab_size))

    return Planned(objective, batch, assumed.samples, kept, kept, None, notes)


def _generator(run: GeneratorRun, assumed: Assumed, rows: int) -> Planned:
    notes: list[str] = []
    words, config = _words(run.data.captions_path, assumed, notes), run.data.loader
    spec = _latent_spec(run, assumed, notes)
    generator = SeqGenerator(run.model, spec, words)
    objective = GeneratorObjective(generator, run.objective, spec)
    kept = 4 * spec.length * spec.dim
    if isinstance(words, CaptionTokenizer) and (run.data.folder / MANIFEST).is_file():
        read = lambda count: read_latents(run.data.folder, run.data.split, words, count, config)  # noqa: E731
        return _of_data(objective, read, run.data.folder, run.data.split, rows, kept, notes)
    levels = config.levels or _LEVELS
    notes.append(f"no data read from {run.data.folder}: random latents, {levels} caption levels")

    def batch(count: int) -> LatentTextBatch:
        latents = torch.randn(count, spec.length, spec.dim, generator=_dice(1))
        return LatentTextBatch(latents=latents, **_captions(count, levels, config.max_tokens, words.vocab_size))

    return Planned(objective, batch, assumed.samples, kept, kept, None, notes)


def _of_data(
    objective: nn.Module, read: Callable[[int], Any], folder: Path, split: str, rows: int, kept: int, notes: list[str]
) -> Planned:
    found = read_manifest(folder).split(split, folder)
    if not found.samples:
        raise DataError(f"{folder}: split {split} is empty")
    count = min(found.samples, max(rows, _TIMED))
    began = time.perf_counter()
    whole = read(count)
    rate = count / max(time.perf_counter() - began, 1e-9)
    stored = sum(shard.bytes for shard in found.shards) // found.samples
    return Planned(objective, lambda size: _rows(whole, size), found.samples, kept, stored, rate, notes)


def _rows(batch: Any, size: int) -> Any:
    """The first `size` rows, from the start again when there are not as many."""
    index = torch.arange(size) % len(batch)
    taken: dict[str, Any] = {"keys": [batch.keys[i] for i in index.tolist()]}
    for item in fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            taken[item.name] = value[index]
    return replace(batch, **taken, labels={}, captions=[])


@dataclass(frozen=True)
class _Words:
    """Stands for a captions model of which only the size is known."""

    vocab_size: int


def _words(path: Path, assumed: Assumed, notes: list[str]) -> Any:
    if path.is_file() and assumed.vocab is None:
        return CaptionTokenizer.load(path)
    vocab = assumed.vocab or _ASSUMED_VOCAB
    notes.append(f"vocabulary of {vocab} pieces assumed ({path} is not there; --vocab)")
    return _Words(vocab)


def _latent_spec(run: GeneratorRun, assumed: Assumed, notes: list[str]) -> LatentSpec:
    if assumed.latents is None and (run.data.folder / MANIFEST).is_file():
        return LatentSpec.from_json(read_manifest(run.data.folder).latent_spec or {}, f"{run.data.folder}/{MANIFEST}")
    if assumed.latents is None:
        raise ConfigError(f"{run.data.folder}: no latents there to take K and D from; say --latents 64x16")
    length, dim = assumed.latents
    notes.append(f"{length} latents of {dim} channels assumed (--latents)")
    return LatentSpec(length, dim, torch.zeros(length, dim), torch.ones(length, dim), "assumed")


def _captions(count: int, levels: int, longest: int, vocab: int) -> dict[str, Any]:
    """Captions that never repeat, longer from level to level: at most `_TOKENS` and the loader's limit."""
    tokens = min(_TOKENS, longest)
    ids = torch.randint(_FIRST_CONTENT, max(vocab, _FIRST_CONTENT + 1), (count, levels, tokens), generator=_dice(2))
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


def _dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class PlanRequest:
    """The options of the command."""

    gpus: int = 1
    gpu: str | None = None  # a name of training/costs/hardware.py, "cpu", or None for what this machine has
    price: float | None = None
    mfu: float | None = None
    measure: bool | None = None  # None: on the machine's own device
    steps: int = 20  # to be measured
    assumed: Assumed = field(default_factory=Assumed)
