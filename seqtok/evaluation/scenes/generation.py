"""Do generated pictures show what their prompts asked for? Shares of right answers, each beside what chance
gives.

Chance is what real pictures of *other* scenes score for the same prompts; the ceiling is what the reader
says of the real pictures of the *same* scenes. Prompts are split into combinations that training held and
those it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.samples import to_model
from data_pipelines.scenes import Scene, render
from seqtok.evaluation.scenes.reader import Reading, SceneReader
from seqtok.evaluation.scenes.scoring import ATTRIBUTES, FINEST, score_reading

Verdict = dict[str, bool]  # attribute -> right or wrong, only of what the prompt speaks of
_SHIFTS = 40  # pairings of prompts with other scenes' pictures that the chance level is averaged over
_Z = 1.96  # 95 %


def read_pictures(reader: SceneReader, pictures: Tensor) -> list[Reading]:
    """(B, 3, H, W) uint8 -> B readings."""
    return reader.read(to_model(pictures))


def real_pictures(scenes: Sequence[Scene], size: int) -> Tensor:
    """(B, 3, size, size) uint8."""
    drawn = np.stack([render(scene, size) for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def judge(readings: Sequence[Reading], scenes: Sequence[Scene], level: int = FINEST) -> list[Verdict]:
    """Picture i is judged by what prompt i, the caption of scene i at `level` (0 coarse .. 3 fine), says."""
    return [score_reading(r, s, level) for r, s in zip(readings, scenes, strict=True)]


def chance_verdicts(readings: Sequence[Reading], scenes: Sequence[Scene], level: int = FINEST) -> list[Verdict]:
    """Verdicts of the real pictures of other scenes: prompt i with picture i + 1, i + 2, ... up to 40
    times."""
    count = len(scenes)
    return [
        score_reading(readings[(i + shift) % count], scene, level)
        for shift in range(1, min(_SHIFTS, count - 1) + 1)
        for i, scene in enumerate(scenes)
    ]


def share(verdicts: Sequence[Verdict], attribute: str) -> float | None:
    """Share of right verdicts among the prompts that speak of the attribute; None when there is no such
    prompt."""
    said = [verdict[attribute] for verdict in verdicts if attribute in verdict]
    return sum(said) / len(said) if said else None


def wilson(value: float, count: int) -> tuple[float, float]:
    """95 % interval of a share seen in `count` trials (Wilson 1927): honest near 0 and 1 and for few
    trials."""
    spread = _Z * sqrt(value * (1 - value) / count + _Z**2 / (4 * count**2))
    middle, scale = value + _Z**2 / (2 * count), 1 + _Z**2 / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def summarise_verdicts(
    verdicts: Sequence[Verdict], chance: Sequence[Verdict], real: Sequence[Verdict], scenes: Sequence[Scene]
) -> dict[str, dict[str, Any]]:
    """Attribute -> value with 95 % interval, chance, ceiling, and the same for seen and unseen combinations.

    `chance` comes from `chance_verdicts` and `real` from the real pictures, both in the order of `scenes`.
    """
    unseen = [scene.unseen for scene in scenes]
    table: dict[str, dict[str, Any]] = {}
    for attribute in ATTRIBUTES:
        value = share(verdicts, attribute)
        if value is None:
            continue
        count = sum(attribute in verdict for verdict in verdicts)
        low, high = wilson(value, count)
        row: dict[str, Any] = {"value": value, "low": low, "high": high, "prompts": count}
        row |= {"chance": share(chance, attribute), "real": share(real, attribute)}
        for name, wanted in (("seen", False), ("unseen", True)):
            own = [v for v, u in zip(verdicts, unseen, strict=True) if u == wanted]
            others = [v for i, v in enumerate(chance) if unseen[i % len(unseen)] == wanted]
            row[name] = share(own, attribute)
            row[f"chance_{name}"] = share(others, attribute)
            row[f"prompts_{name}"] = sum(attribute in v for v in own)
        table[attribute] = row
    return table
