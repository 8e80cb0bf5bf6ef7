"""Room on the disk for what a run will leave, looked at before the first step: most runs that fill a disk do it after
hours."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import StorageError
from seqtok_core.training.checkpoints.checkpoint import CHECKPOINTS, all_in
from seqtok_core.training.config import TrainConfig

log = logging.getLogger(__name__)
_WEIGHT, _MOMENTA, _AVERAGE = 4, 8, 4  # bytes per parameter; Muon has 4 of momenta, AdamW 8


def checkpoint_bytes(objective: nn.Module, config: TrainConfig) -> int:
    """Of one checkpoint, at most: weights, momenta and average of what is trained, weights of the rest."""
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in objective.parameters()) - trained
    each = _WEIGHT + _MOMENTA + (_AVERAGE if config.ema_decay is not None else 0)
    return trained * each + frozen * _WEIGHT


def require_room(folder: Path, objective: nn.Module, config: TrainConfig, models: int) -> None:
    """Rank 0, before training; `models`: model folders that will be written. Raises StorageError where not even the
    next checkpoint and a model have room; a warning where there is less than all that will be kept."""
    one, model = checkpoint_bytes(objective, config), _WEIGHT * sum(p.numel() for p in objective.parameters())
    there = all_in(folder / CHECKPOINTS)
    free = files.free_bytes(folder)
    if free < one + model:
        raise StorageError(
            f"{folder}: {_mib(free)} free, but a checkpoint of this run takes up to {_mib(one)} and its model "
            f"{_mib(model)}; free some space, or choose a folder on another disk"
        )
    kept = min(config.keep, _saves(config, config.save_every)) + _saves(config, config.keep_every)
    needed = one * max(kept + 1 - len(there), 1) + models * model  # the next one is written before the oldest goes
    if free < needed:
        log.warning(
            "%s: %s free, but %d checkpoints of up to %s and %d models will want %s: the disk may be full before the "
            "end; keep fewer (`keep`, `keep_every`), or free some space",
            *(folder, _mib(free), kept + 1, _mib(one), models, _mib(needed)),
        )


def _saves(config: TrainConfig, every: int | None) -> int:
    """How often a run saves at every so many images."""
    return 0 if every is None else -(-config.images // every)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
