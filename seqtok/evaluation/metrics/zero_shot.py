"""Which of given captions says what a picture shows, by how likely each is: classes by their words, nothing fitted.

Shapes: B pictures, C candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqtok.evaluation.metrics.intervals import bootstrap_interval


@dataclass(frozen=True)
class Choice:
    """What there is to choose from, and what would be right."""

    candidates: list[str]  # C, one caption of each meaning, the commonest of its wordings
    answer: Tensor  # (B,) int64, the candidate that says what the picture's own caption says


def choice_of(captions: Sequence[str], meaning: Callable[[str], str] = str) -> Choice:
    """captions: of B pictures, of one level. `meaning` maps captions that say the same to one string."""
    meanings = [meaning(caption) for caption in captions]
    wordings: dict[str, Counter[str]] = {said: Counter() for said in sorted(set(meanings))}
    for said, caption in zip(meanings, captions, strict=True):
        wordings[said][caption] += 1
    number = {said: place for place, said in enumerate(wordings)}
    candidates = [max(own, key=lambda caption: (own[caption], caption)) for own in wordings.values()]
    return Choice(candidates, torch.tensor([number[said] for said in meanings]))


def choice_accuracy(scores: Tensor, choice: Choice) -> dict[str, Any]:
    """scores (B, C), the likelier the higher -> the share of pictures whose likeliest candidate is right, with its 95 %
    interval over pictures, and chance: always naming the commonest answer."""
    hits = (scores.argmax(1) == choice.answer).float()
    low, high = bootstrap_interval(hits[:, None])
    chance = float(torch.bincount(choice.answer).max()) / len(choice.answer)
    row = {"value": float(hits.mean()), "low": low, "high": high, "chance": chance}
    return {**row, "candidates": len(choice.candidates), "pictures": len(hits)}
