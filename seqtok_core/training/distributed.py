"""Who am I among the processes of a run: one without a launcher, several under torchrun.

A single process uses a store in its own memory, so it needs no port and any number of runs live side by side.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from seqtok_core.foundation.errors import ConfigError, SeqtokError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place. Known from the environment, before any connection is made."""

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @classmethod
    def from_environment(cls) -> World:
        """RANK, WORLD_SIZE, LOCAL_RANK as torchrun sets them; without them a single process."""
        try:
            rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
            local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        except ValueError as error:
            raise ConfigError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: {error}") from None
        if not 0 <= rank < size:
            raise ConfigError(f"RANK={rank} does not lie below WORLD_SIZE={size}; start under torchrun")
        on_gpu = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR", "cuda") == "cuda"
        device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
        return cls(rank, size, local_rank, device)


def connect(world: World, timeout_s: int = 1800) -> None:
    """Form the process group (gloo on CPU, nccl on GPU); once per process, further calls do nothing."""
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))  # DeepSpeed asks for it
    if dist.is_initialized():
        return
    backend = "nccl" if world.device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    else:
        dist.init_process_group(backend, timeout=timeout)
    atexit.register(_disconnect)


def _disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier(world: World) -> None:
    """All processes arrive here. A group that is torn down without one can abort the interpreter."""
    if world.size > 1:
        dist.barrier()


def on_first(world: World, action: Callable[[], T]) -> T:
    """Run `action` on rank 0 and hand its result to all; a SeqtokError is raised on every process."""
    outcome: list[Any] = [None, None]
    if world.is_first:
        try:
            outcome[0] = action()
        except SeqtokError as error:
            outcome[1] = error
    if world.size > 1:
        dist.broadcast_object_list(outcome, src=0, device=world.device)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def any_of(world: World, flag: bool) -> bool:
    """True on all when it is true on one."""
    if world.size == 1:
        return flag
    shared = torch.tensor([int(flag)], device=world.device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())


def gather_objects(world: World, value: T) -> list[T]:
    """The small value of every process, by rank, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def mean_over(world: World, values: torch.Tensor) -> torch.Tensor:
    """Mean over processes of equally shaped tensors; unchanged, bit for bit, in a single process."""
    if world.size == 1:
        return values
    shared = values.clone()
    dist.all_reduce(shared)
    return shared / world.size


def equal_start(module: nn.Module, world: World) -> None:
    """Give every process the parameters and buffers of rank 0."""
    if world.size > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, src=0)
