"""How fast a run is beside what its machine could do: MFU, and the most memory it held.

MFU (PaLM, arXiv:2204.02311, appendix B) = FLOPs of the model per second / peak of the devices. The FLOPs are
counted once, on the first micro-batch, with autocast as in training; what activation checkpointing computes
a second time does not count. A CPU's peak has to be measured, which takes a second, so only runs that last get one.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.costs.flops import count_flops, new_counter
from seqtok_core.training.costs.hardware import peak_flops
from seqtok_core.training.engine import recompute
from seqtok_core.training.engine.precision import DTYPES
from seqtok_core.training.processes.distributed import World

_WORTH_MEASURING_S = 20.0


def flops_per_image(objective: nn.Module, batch: Any, config: TrainConfig, world: World) -> float:
    """FLOPs of forward and backward per image; `objective` not yet under DeepSpeed. Called by all processes."""
    objective.to(world.device)
    batch = batch.to(world.device)
    again = _Sum()
    precision = torch.autocast(world.device.type, DTYPES[config.precision], enabled=config.precision != "fp32")
    with precision, _memory_as_in_training(objective, config, again):
        total = count_flops(objective, batch)
    return (total - again.flops) / len(batch.keys)


@contextlib.contextmanager
def _memory_as_in_training(objective: nn.Module, config: TrainConfig, again: _Sum) -> Iterator[None]:
    """With activation checkpointing where the run has it; `again` counts what it computes twice."""
    if not config.activation_checkpointing:
        yield
        return
    with recompute.wrapped(objective, lambda: (contextlib.nullcontext(), again)):
        yield


class _Sum:
    """FLOPs of all that ran inside; a counter of torch starts anew each time it is entered."""

    def __init__(self) -> None:
        self.flops, self._counter = 0, new_counter()

    def __enter__(self) -> None:
        self._counter.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._counter.__exit__(*error)
        self.flops += self._counter.get_total_flops()


class Speed:
    """Rank 0's estimate of the model FLOPs utilisation; None until the peak is known."""

    def __init__(self, flops_per_image: float, config: TrainConfig, world: World) -> None:
        self._flops, self._precision, self._world = flops_per_image, config.precision, world
        self._began = time.monotonic()
        self._peak: float | None = None
        self.peak_source: str | None = None

    def mfu(self, images_per_s: float) -> float | None:
        if not self._world.is_first or not self._flops:
            return None
        if self._peak is None and self.peak_source is None:
            self._find_peak()
        return self._flops * images_per_s / (self._peak * self._world.size) if self._peak else None

    def _find_peak(self) -> None:
        if self._world.device.type == "cpu" and time.monotonic() - self._began < _WORTH_MEASURING_S:
            return
        try:
            self._peak, self.peak_source = peak_flops(self._world.device, self._precision)
        except ConfigError as error:
            self.peak_source = str(error)


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has held: of the GPU's memory, else resident in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
