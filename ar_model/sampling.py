"""How latents are drawn: the one owner of every default."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from ar_model.heads.build import HeadSampleConfig
from seqtok_core.foundation.config import Config, overlay
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws

Score = Callable[[Tensor], Tensor]  # latents (B, k, D), as the tokenizer's `decode` takes them -> (B,), more is better


class SampleConfig(HeadSampleConfig):
    """What holds for every head; beside it each head's own part, under its kind."""

    guidance: float = Field(3.0, ge=0)  # 1 = follow the prompt as learnt, more = insist on it
    schedule: Literal["constant", "linear"] = "constant"  # linear: guidance rises from 1 at the first token
    temperature: float = Field(1.0, ge=0)  # scale of the initial noise
    # Model folder or hub id of a weaker model of the same latents, trained shorter or smaller: guidance then holds what
    # is drawn against what that one would draw of the same prompt, instead of against no prompt (autoguidance, Karras
    # et al. 2024, arXiv:2406.02507). For next_token with a flow head.
    weak: str | None = None

    @property
    def guided(self) -> bool:
        """Whether the model must be read without the prompt, too."""
        return self.guidance != 1.0

    def changed(self, **changes: Any) -> Self:
        """With other values, in a head's part too. Raises ConfigError that names the nearest key."""
        return type(self).parse(overlay(self.model_dump(), changes), "sample") if changes else self


class SearchConfig(Config):
    """How many drawings are made of each prompt, of which the best by a score is kept."""

    candidates: int = Field(1, ge=1)  # of each picture; with beams, ways to go on from each beginning
    beams: int = Field(1, ge=1)  # beginnings of each picture that are kept at 1, 2, 4, ... tokens

    @property
    def chooses(self) -> bool:
        return self.candidates > 1 or self.beams > 1


def best_of(draw: Callable[[int], Tensor], candidates: int, score: Score | None) -> Tensor:
    """Of every row the best of some drawings; where two are as good, the earlier. `draw`: number -> (B, k, D)."""
    if candidates < 1:
        raise ConfigError(f"candidates={candidates}: at least one is drawn")
    best = draw(0)
    if candidates == 1:
        return best
    if score is None:
        raise ConfigError(f"candidates={candidates}: say by `score` which of them is the best")
    highest = score(best).to(best.device)
    for number in range(1, candidates):
        other = draw(number)
        value = score(other).to(best.device)
        better = value > highest
        best = torch.where(better[:, None, None], other, best)
        highest = torch.where(better, value, highest)
    return best


def beam_search(
    go_on: Callable[[Tensor | None, int, int], Tensor],
    lengths: Sequence[int],
    beams: int,
    candidates: int,
    score: Score | None,
) -> Tensor:
    """Of every row the `beams` best beginnings are kept at each of `lengths`, the best of them at the last.

    `go_on`: kept (B, k, D) or None, a length and a number that tells drawings apart -> (B, length, D). From each
    beginning `candidates` are drawn, from nothing beams x candidates. Beginnings are judged as they are: a prefix is a
    picture. In all beams x candidates as many tokens are drawn as for one picture.
    """
    if beams < 1 or candidates < 1:
        raise ConfigError(f"beams={beams}, candidates={candidates}: at least one is kept and one is drawn")
    if score is None:
        raise ConfigError(f"beams={beams}: say by `score` which beginnings are the best")
    kept: list[Tensor | None] = [None]
    for length in lengths:
        pool: list[Tensor] = []
        for beginning in kept:
            for _ in range(beams * candidates // len(kept)):
                drawn = go_on(beginning, length, len(pool))
                known = 0 if beginning is None else beginning.shape[1]
                pool.append(drawn if beginning is None else torch.cat([beginning, drawn[:, known:]], 1))
        values = torch.stack([score(drawn).to(drawn.device) for drawn in pool], 1)  # (B, drawings)
        best = values.topk(min(beams, len(pool)), 1).indices
        rows, stacked = torch.arange(len(best), device=best.device), torch.stack(pool, 1)
        kept = [stacked[rows, best[:, rank]] for rank in range(best.shape[1])]
    found = kept[0]
    assert found is not None
    return found


def require_batch(batch: int) -> None:
    """Raise ConfigError where nothing would be computed at once."""
    if batch < 1:
        raise ConfigError(f"batch={batch}: at least one is computed at once")


def of_rows(asked: Sequence[bytes], seed: int, device: torch.device | None = None) -> Draws:
    """Random numbers of each row, named by what it is asked and by how often the same was asked before it.

    So a prompt's sample does not depend on its neighbours, and a prompt given twice gives two samples.
    """
    seen: Counter[bytes] = Counter()
    index, epoch = [], []
    for row in asked:
        digest = hashlib.sha256(row).digest()
        index.append(int.from_bytes(digest[:8], "little", signed=True))
        epoch.append(seen[digest])
        seen[digest] += 1
    int64 = torch.int64
    return Draws(seed, torch.tensor(epoch, dtype=int64, device=device), torch.tensor(index, dtype=int64, device=device))
