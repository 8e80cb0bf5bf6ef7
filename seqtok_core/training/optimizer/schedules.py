"""Learning rate as a pure function of the images seen: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from seqtok_core.training.config import TrainConfig


def rate_factor(config: TrainConfig, images_seen: int) -> float:
    """Factor on every learning rate for the step that begins after `images_seen` images, in [0, 1].

    Warm-up is linear and counts the step to be taken, so that the first step is not idle.
    """
    if config.warmup_images and images_seen + config.batch <= config.warmup_images:
        return (images_seen + config.batch) / config.warmup_images
    if config.schedule == "constant":
        return 1.0
    decay_from = config.warmup_images
    if config.schedule == "wsd":
        decay_from = max(decay_from, round(config.images * (1.0 - config.decay_fraction)))
    span = max(1, config.images - decay_from)
    passed = min(1.0, max(0.0, (images_seen - decay_from) / span))
    shape = 0.5 * (1.0 + math.cos(math.pi * passed)) if config.schedule == "cosine" else 1.0 - passed
    return config.final_lr_fraction + (1.0 - config.final_lr_fraction) * shape


def crosses(every: int | None, before: int, after: int) -> bool:
    """Whether a multiple of `every` images lies in (before, after]."""
    return every is not None and after // every > before // every
