"""Who am I among the processes of a run: one without a launcher, several under torchrun, deepspeed or srun.

A single process uses a store in its own memory, so it needs no port and any number of runs live side by side.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from seqtok_core.foundation.errors import ConfigError, SeqtokError
from seqtok_core.training.processes.launch import read_place

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
        """As launch.py reads it. Raises ConfigError when the variables do not fit each other or the machine."""
        place = read_place()
        return cls(place.rank, place.size, place.local_rank, _device(place.local_rank, place.launcher))


def _device(local_rank: int, launcher: str) -> torch.device:
    wanted = os.environ.get("DS_ACCELERATOR")
    if wanted not in (None, "cpu", "cuda"):
        raise ConfigError(f"DS_ACCELERATOR={wanted}: choose cpu or cuda, or unset it")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "DS_ACCELERATOR=cuda, but torch finds no usable GPU; unset it, or look at the driver and at torch's build"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if visible == 1 and launcher == "srun":
        return torch.device("cuda", 0)  # --gpus-per-task=1 shows each task its own GPU alone
    if local_rank >= visible:
        raise ConfigError(
            f"LOCAL_RANK={local_rank}, but {visible} GPUs are visible here; start one process per GPU, {visible} in all"
        )
    return torch.device("cuda", local_rank)


class _Group:
    """The process group of this process. A group belongs to the process, and so does this."""

    control: Any = None  # gloo beside nccl: flags and objects travel without waiting for the GPU
    in_step = False  # all processes are alive and about to leave together


def connect(world: World, timeout_s: float = 1800) -> None:
    """Form the process group (gloo on CPU, nccl on GPU); once per process, further calls do nothing.

    Raises ConfigError when the meeting point cannot be used.
    """
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
        os.environ.update(read_place().variables)
        try:
            dist.init_process_group(backend, timeout=timeout)
        except dist.DistError as error:
            raise ConfigError(_no_meeting(error, timeout_s)) from None
        if backend == "nccl":
            _Group.control = dist.new_group(backend="gloo", timeout=timeout)
    atexit.register(_disconnect)


def _no_meeting(error: Exception, timeout_s: float) -> str:
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    reason = str(error).splitlines()[0]
    if "EADDRINUSE" in str(error) or "address already in use" in str(error):
        return (
            f"port {port} of {host} is in use by another launch, or by one that was left over; "
            "give another (`deepspeed --master_port`, `torchrun --master-port`, MASTER_PORT under srun)"
        )
    return (
        f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} found no common start at {host}:{port} within "
        f"{timeout_s / 60:.0f} min ({reason}); are all processes running, and is the port open between the nodes?"
    )


def _disconnect() -> None:
    if not dist.is_initialized():
        return
    with contextlib.suppress(RuntimeError):  # another process may have been killed since
        if _Group.in_step:
            dist.barrier(group=_Group.control)  # torn down while others still use it, a group can abort them
        dist.destroy_process_group()


def leave(status: int) -> None:
    """End a process that is one of several, once everything registered for its end is done; alone, do nothing.

    The interpreter is not torn down. A thread of gloo may still free a tensor of a finished collective, for which it
    asks for the interpreter's lock; Python 3.11 ends a thread that does so too late in the middle of C++ code, and
    the process aborts after a good run (2 of about 50 launches on a loaded machine, in spite of a barrier).
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def together(world: World) -> Iterator[None]:
    """Around what all processes do alike. Only who comes out of it unharmed waits for the others at its end."""
    _Group.in_step = False
    yield
    _Group.in_step = world.size > 1


def is_lost_contact(error: BaseException) -> bool:
    """Whether an error says that another process is gone or does not answer."""
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return isinstance(error, dist.DistError) or any(word in text for word in _LOST)


_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe", "gloo", "NCCL")


def barrier(world: World) -> None:
    """All processes arrive here. A group that is torn down without one can abort the interpreter."""
    if world.size > 1:
        dist.barrier(group=_Group.control)


def on_first(world: World, action: Callable[[], T]) -> T:
    """Run `action` on rank 0 and hand its result to all; a SeqtokError is raised on every process."""
    outcome: list[Any] = [None, None]
    if world.is_first:
        try:
            outcome[0] = action()
        except SeqtokError as error:
            outcome[1] = error
    if world.size > 1:
        dist.broadcast_object_list(outcome, src=0, group=_Group.control, device=_talks_on(world))
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _talks_on(world: World) -> torch.device:
    return torch.device("cpu") if _Group.control is not None else world.device


def any_of(world: World, flag: bool) -> bool:
    """True on all when it is true on one."""
    if world.size == 1:
        return flag
    shared = torch.tensor([int(flag)])  # on CPU: the GPU shall not be waited for in every step
    dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=_Group.control)
    return bool(shared.item())


def gather_objects(world: World, value: T) -> list[T]:
    """The small value of every process, by rank, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value, group=_Group.control)
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
