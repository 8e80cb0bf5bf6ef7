"""What do the first tokens fix? They are kept, the rest is drawn anew, and what still shows is counted.

The rest comes from the sequence model, which is told nothing but the tokens kept, or at random, which shows what the
decoder does by itself: from another picture, or as noise. Shapes: B pictures, K latents of D channels, k <= K, S
drawings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from data_pipelines.scenes import Scene
from seq_tokenizer.latents import prefix_lengths
from seqtok.evaluation.metrics.reconstruction import psnr
from seqtok.evaluation.scenes.generation import chance_verdicts, judge, share
from seqtok.evaluation.scenes.reader import Reading, true_reading
from seqtok.evaluation.scenes.scoring import ATTRIBUTES

Redraw = Callable[[int, int], Tensor]  # tokens kept, seed -> latents (B, K, D)
_SHIFTS = 40  # pairings with other pictures that the chance level of labels is averaged over


def kept_tokens(length: int, groups: Sequence[int] = ()) -> tuple[int, ...]:
    """How many tokens are kept: 0, 1, 2, 4, ... K, or where tokens are drawn in groups whole ones."""
    return (0, *accumulate(groups)) if groups else (0, *prefix_lengths(length))


def swapped_tails(latents: Tensor, kept: int, seed: int) -> Tensor:
    """latents (B, K, D) -> the first `kept` tokens of each picture, then those of another; B of 2 or more."""
    draws = torch.Generator().manual_seed(seed)
    shift = 1 + int(torch.randint(len(latents) - 1, (), generator=draws))
    return torch.cat([latents[:, :kept], latents.roll(shift, 0)[:, kept:]], 1)


def noise_tails(latents: Tensor, kept: int, seed: int) -> Tensor:
    """The same, then noise: normal, scaled token by token to the root mean square that latents of its place have, which
    is 1 where the tokenizer makes it so."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    unit = noise / noise.square().mean(2, keepdim=True).sqrt()
    size = latents.square().mean((0, 2)).sqrt()[:, None]  # (K, 1)
    return torch.cat([latents[:, :kept], (unit * size)[:, kept:]], 1)


def pixels_kept(redrawn: Tensor, originals: Tensor) -> dict[str, float]:
    """redrawn (S, B, 3, H, W) and originals (B, 3, H, W) uint8 -> "psnr", a mean over redrawings in dB, and "std", how
    much the redrawings of one picture differ in a pixel, a mean over pixels in levels of 255; S of 2 or more."""
    near = torch.stack([psnr(each, originals) for each in redrawn])
    return {"psnr": float(near.mean()), "std": float(redrawn.float().std(0).mean())}


def attributes_kept(readings: Sequence[Sequence[Reading]], scenes: Sequence[Scene]) -> dict[str, float]:
    """Readings of each drawing -> attribute -> the share that shows it as the original does."""
    verdicts = [verdict for own in readings for verdict in judge(own, scenes)]
    return _shares(verdicts)


def attributes_by_chance(readings: Sequence[Reading], scenes: Sequence[Scene]) -> dict[str, float]:
    """The same of what other scenes' pictures show."""
    return _shares(chance_verdicts(readings, scenes))


def _shares(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    found = {name: share(verdicts, name) for name in ATTRIBUTES}
    return {name: value for name, value in found.items() if value is not None}


def reading_labels(reading: Reading) -> dict[str, Any]:
    """The scene's labels that a picture alone tells: how many shapes, which kinds and colours, the background."""
    seen = reading.objects
    kinds, colors = frozenset(shape.kind for shape in seen), frozenset(shape.color for shape in seen)
    return {"count": len(seen), "shapes": kinds, "colors": colors, "background": reading.background}


def labels_kept(readings: Sequence[Sequence[Reading]], scenes: Sequence[Scene]) -> dict[str, float]:
    """Readings of each drawing -> label -> the share that has the original's."""
    true = [reading_labels(true_reading(scene)) for scene in scenes]
    seen = [[reading_labels(reading) for reading in own] for own in readings]
    pairs = [pair for own in seen for pair in zip(own, true, strict=True)]
    return {name: sum(a[name] == b[name] for a, b in pairs) / len(pairs) for name in true[0]}


def labels_by_chance(readings: Sequence[Reading], scenes: Sequence[Scene]) -> dict[str, float]:
    """The same of what other scenes' pictures show."""
    shifts = range(1, min(_SHIFTS, len(scenes) - 1) + 1)
    return labels_kept([[*readings[shift:], *readings[:shift]] for shift in shifts], scenes)
