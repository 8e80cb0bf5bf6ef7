"""What a checkpoint says about the run that wrote it, and whether another run may go on from it.

May differ: processes, ZeRO stage, micro-batch, precision (weights are fp32 at every precision). Must be equal: the
model's names and shapes, and the global batch, in which the place in the data is counted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from seqtok_core.foundation.errors import MismatchError
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.journal import environment
from seqtok_core.training.processes.distributed import World

log = logging.getLogger(__name__)


def describe_state(engine: Engine, config: TrainConfig, world: World, step: int) -> dict[str, Any]:
    """The manifest's account of its run."""
    return {
        "model": engine.fingerprint,
        "shapes": engine.shapes,
        "zero_stage": config.zero_stage,
        "processes": world.size,
        "precision": config.precision,
        "batch": config.batch,
        "together": config.micro_batch_of(world.size) * world.size,
        "images": step * config.batch,
        "seqtok": environment.version_of("seqtok"),
    }


def take_over(source: Path, engine: Engine, config: TrainConfig, world: World) -> tuple[int, dict[str, Any]]:
    """Fill `engine` from a verified checkpoint; returns the steps done and what was no tensor. Collective.

    Raises MismatchError when model or global batch differ, or another optimizer trained a parameter.
    """
    manifest, state = checkpoint.read_checkpoint_manifest(source), checkpoint.read_state(source)
    _require_same(source, manifest, describe_state(engine, config, world, 0), world)
    step = int(manifest["step"])
    engine.restore(checkpoint.open_parts(source), state, step)
    return step, state


def _require_same(source: Path, there: dict[str, Any], here: dict[str, Any], world: World) -> None:
    if there["model"] != here["model"]:
        raise MismatchError(f"{source}: saved from a model with other weights (names or shapes); not usable here")
    if there["batch"] != here["batch"]:
        raise MismatchError(
            f"{source}: saved after {there['step']} steps of {there['batch']}, this run has batches "
            f"of {here['batch']}: its place in the data would be another; keep `batch` (`micro_batch`, processes and "
            "`zero_stage` may differ), or export the weights and begin with them"
        )
    if there["together"] != here["together"] and world.is_first:
        log.warning(
            "%s: saved with %d samples per pass (processes x micro_batch), this run has %d; the data are the same, "
            "but a loss that compares samples with each other is not",
            *(source, there["together"], here["together"]),
        )
