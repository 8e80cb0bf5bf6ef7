"""How new held-out scenes are, and what is drawn of them: captions that training had word for word, and how near drawn
pictures come to training pictures, beside how near real held-out ones do.

Shapes: B pictures, N training pictures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from data_pipelines.scenes import Scene
from seqtok.evaluation.scenes.generation import Verdict
from seqtok.evaluation.scenes.scoring import FINEST

_AT_ONCE = 64  # pictures held against all training pictures


def nearest_distances(pictures: Tensor, training: Tensor) -> Tensor:
    """(B, 3, H, W) and (N, 3, H, W) uint8 -> (B,) float32, root mean square distance to the nearest, in
    8-bit levels."""
    known = training.flatten(1).float()
    norms = known.square().sum(1)
    found = []
    for part in pictures.flatten(1).float().split(_AT_ONCE):
        nearest = (norms - 2 * part @ known.T).argmin(1)  # products are quick, and too coarse for a distance
        found.append((part - known[nearest]).square().mean(1))
    return torch.cat(found).sqrt()


def novelty(
    scenes: Sequence[Scene], drawn: Tensor, real: Tensor, training: Tensor, training_captions: Collection[str]
) -> dict[str, Any]:
    """-> `captions`: number of shapes, "all" -> share of the scenes whose finest caption stands word for word in the
    training; `distance`: medians of the nearest training picture's distance, of drawn and of real held-out pictures."""
    known = set(training_captions)
    by_shapes: dict[str, list[bool]] = {}
    for scene in scenes:
        seen = scene.captions[FINEST] in known
        by_shapes.setdefault(str(len(scene.shapes)), []).append(seen)
        by_shapes.setdefault("all", []).append(seen)
    return {
        "captions": {name: sum(own) / len(own) for name, own in sorted(by_shapes.items())},
        "distance": {
            "drawn": median(nearest_distances(drawn, training).tolist()),
            "held_out": median(nearest_distances(real, training).tolist()),
        },
    }


def by_number_of_shapes(verdicts: Sequence[Verdict], scenes: Sequence[Scene]) -> dict[str, float]:
    """Number of shapes -> share of pictures with everything right."""
    found: dict[str, list[bool]] = {}
    for verdict, scene in zip(verdicts, scenes, strict=True):
        found.setdefault(str(len(scene.shapes)), []).append(verdict["everything"])
    return {name: sum(own) / len(own) for name, own in sorted(found.items())}
