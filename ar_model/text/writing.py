"""How captions are written, word by word: the likeliest word, nucleus sampling, beam search.

Shapes: B pictures, R = B beams rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.choice import choose, nucleus
from seqtok_core.layers.flow import guide
from seqtok_core.layers.randomness import Draws

_NEVER = [PAD, BOS, BOI, EOI]  # ids that no caption holds


class CaptionConfig(Config):
    """How a caption is chosen."""

    beams: int = Field(1, ge=1)  # beginnings that are kept; 1: the likeliest word is taken at once
    length_penalty: float = 1.0  # beams are compared by log p / tokens^penalty; above 0 favours longer ones
    temperature: float = Field(0.0, ge=0)  # 0: the likeliest word; else words are drawn
    top_p: float = Field(1.0, gt=0, le=1)  # words are drawn from the fewest that have this much of the probability
    # Above 1 the picture counts for more than what captions usually say, where the model has learnt to write without
    # a picture (Kornblith et al. 2023, arXiv:2307.16686).
    guidance: float = Field(1.0, ge=0)
    # Captions of which a picture keeps the one that it is drawn from best; all but the first have words drawn at
    # temperature 1 (or at that above).
    candidates: int = Field(1, ge=1)
    max_tokens: int | None = Field(None, ge=1)  # longer captions end there; None: as long as the model may read

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.beams > 1 and self.temperature > 0:
            raise ValueError(f"beams={self.beams} look for the likeliest caption; leave temperature at 0")
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError(f"top_p={self.top_p:g} is for words that are drawn; set temperature above 0")
        return self

    def ways(self) -> list[Self]:
        """How each of the candidates is written."""
        further = self.changed(beams=1, temperature=self.temperature or 1.0)
        return [self, *[further] * (self.candidates - 1)]

    def changed(self, **changes: Any) -> Self:
        """With other values. Raises ConfigError that names the nearest key."""
        return type(self).parse({**self.model_dump(), **changes}, "caption") if changes else self


@dataclass(frozen=True)
class WordModel:
    """What a sequence model says of the next word. `first` (B, V): logits of the first one. `next`: of R rows the row
    (R,) that each goes on from, and the word (R,) it added -> logits (R, V)."""

    first: Tensor
    next: Callable[[Tensor, Tensor], Tensor]


def guided(writer: WordModel, blind: WordModel, scale: float) -> WordModel:
    """`writer` held against the same model without a picture, log p_blind + scale (log p - log p_blind)."""

    def mix(told: Tensor, untold: Tensor) -> Tensor:
        return guide(told.float().log_softmax(-1), untold.float().log_softmax(-1), scale)

    def go_on(parents: Tensor, words: Tensor) -> Tensor:
        return mix(writer.next(parents, words), blind.next(parents, words))

    return WordModel(mix(writer.first, blind.first), go_on)


def caption_level(level: int | str | None, levels: int) -> int:
    """What is asked of a model that knows `levels`, none or several: a number, "coarse", "fine", or None for the finest
    -> its number. Raises ConfigError where there is no such level."""
    named: dict[Any, int] = {None: max(levels - 1, 0), "fine": levels - 1, "coarse": 0}
    number = named.get(level, level)
    if not isinstance(number, int) or not 0 <= number < max(levels, 1) or (level is not None and not levels):
        known = f"0 (coarse) to {levels - 1} (fine)" if levels else "none: it was trained without caption_levels"
        raise ConfigError(f"level={level}: levels of captions that this model knows: {known}")
    return number


@dataclass(frozen=True)
class Written:
    """A caption without <eos>, and its log probability, that of <eos> counted where it was written."""

    ids: list[int]
    log_prob: float


def write(writer: WordModel, config: CaptionConfig, draws: Draws, limit: int) -> list[Written]:
    """B captions of at most `limit` tokens. Each depends on its own row of the writer and of `draws` alone."""
    return _drawn(writer, config, draws, limit) if config.temperature > 0 else _searched(writer, config, limit)


def log_probs(logits: Tensor) -> Tensor:
    """(R, V) -> (R, V) float32: of all ids, as in training, but what no caption holds cannot be chosen."""
    found = logits.float().log_softmax(-1)
    found[:, _NEVER] = -torch.inf
    return found


def _drawn(writer: WordModel, config: CaptionConfig, draws: Draws, limit: int) -> list[Written]:
    logits = writer.first
    rows, vocabulary = logits.shape
    every = torch.arange(rows, device=logits.device)
    going, total, words = torch.ones_like(every, dtype=torch.bool), torch.zeros(rows, device=logits.device), []
    for step in range(limit):
        log_p = log_probs(logits)
        u = draws.uniform(f"write/{step}", (vocabulary,))
        word = choose(nucleus(log_p, config.temperature, config.top_p), u)
        total = total + torch.where(going, log_p.gather(1, word[:, None])[:, 0], 0.0)
        going = going & (word != EOS)
        words.append(torch.where(going, word, PAD))
        if step + 1 == limit or not going.any():
            break
        logits = writer.next(every, words[-1])
    table = torch.stack(words, 1).tolist()
    return [Written([i for i in row if i != PAD], float(p)) for row, p in zip(table, total, strict=True)]


def _searched(writer: WordModel, config: CaptionConfig, limit: int) -> list[Written]:
    """Beam search as in Wu et al. 2016 (arXiv:1609.08144): of the `beams` likeliest ways to go on those that end are
    set aside, and it ends with as many of these. One beam takes the likeliest word."""
    beams, rows = config.beams, len(writer.first)
    ended: list[list[Written]] = [[] for _ in range(rows)]
    begun: list[list[Written]] = [[Written([], 0.0)] for _ in range(rows)]
    logits, every = writer.first, list(range(rows))
    for step in range(limit):
        going = [row for row in every if begun[row]]
        total = log_probs(logits) + torch.tensor([b.log_prob for row in going for b in begun[row]])[:, None].to(logits)
        parents, words, start = [], [], 0
        for row in going:
            own = total[start : start + len(begun[row])]
            chosen = own.flatten().topk(min(2 * beams, own.numel()))  # enough to go on when half of them end
            before, begun[row] = begun[row], []
            for rank, (value, at) in enumerate(zip(chosen.values.tolist(), chosen.indices.tolist(), strict=True)):
                beam, word = divmod(at, own.shape[1])
                if value == -torch.inf or len(begun[row]) == beams:
                    break
                if word == EOS and rank < beams:
                    ended[row].append(Written(before[beam].ids, value))
                elif word != EOS:
                    begun[row].append(Written([*before[beam].ids, word], value))
                    parents.append(start + beam)
                    words.append(word)
            start += len(before)
            if len(ended[row]) >= beams:
                parents, words = parents[: len(parents) - len(begun[row])], words[: len(words) - len(begun[row])]
                begun[row] = []
        if not parents or step + 1 == limit:
            break
        index = torch.tensor([parents, words], device=logits.device)
        logits = writer.next(index[0], index[1])
    return [_best(ended[row] or begun[row], config.length_penalty) for row in every]


def _best(found: list[Written], penalty: float) -> Written:
    return max(found, key=lambda w: w.log_prob / (len(w.ids) + 1) ** penalty)
