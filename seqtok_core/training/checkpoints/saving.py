"""When a training writes checkpoints: at once, or behind its back while it goes on.

In the background a save costs the training one copy of this process's pieces into memory (fp32 weights, their
average and the momenta: 12 bytes per parameter of Muon and 16 of AdamW, divided by the number of processes);
writing, hashing, flushing and the rename happen in a thread. The files are the same, bit for bit. At most one
checkpoint is in flight; a failure ends the run at its next step, on all processes together.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import torch.distributed as dist

from seqtok_core.foundation.errors import SeqtokError
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.checkpoints.keeping import Keep, Keeper
from seqtok_core.training.processes.distributed import World, gather_objects

_GRACE_S = 30.0  # for what is in flight when a run of several processes fails


class Saver:
    """Writes one checkpoint after the other. All methods but `failed` are collective."""

    def __init__(self, world: World, keep: Keep, background: bool | None) -> None:
        """`background` None: on a GPU, whose training leaves the processor idle; on CPU the thread would compete."""
        self._world, self._keeper = world, Keeper(keep)
        self._background = background = world.device.type == "cuda" if background is None else background
        # its own connections: the thread's messages must not mix with those of the training
        self._group = dist.new_group(backend="gloo") if background and world.size > 1 else None
        self._thread: threading.Thread | None = None
        self._problem: SeqtokError | None = None

    @property
    def failed(self) -> bool:
        """Known on this process; the others may learn it a moment later."""
        return self._problem is not None

    def save(self, job: checkpoint.SaveJob) -> None:
        """Write `job`, or begin to. Raises StorageError when the disk is full, for the one before as well."""
        self.wait()
        job = replace(job, needed=checkpoint.make_room(job, self._world))
        if not self._background:
            self._problem = self._written(job, lambda value: gather_objects(self._world, value))
            self.wait()
            return
        copies = {key: piece.detach().to("cpu", copy=True) for key, piece in job.pieces.items()}
        self._thread = threading.Thread(
            target=self._write, args=(replace(job, pieces=copies),), name="checkpoint", daemon=True
        )
        self._thread.start()

    def _write(self, job: checkpoint.SaveJob) -> None:
        try:
            self._problem = self._written(job, self._gather)
        except Exception as error:  # whatever it is must reach the training
            self._problem = SeqtokError(
                f"{job.aside}: not finished ({error}); the checkpoints before it are whole, the same command continues"
            )

    def _written(self, job: checkpoint.SaveJob, gather: checkpoint.Gather) -> SeqtokError | None:
        problem = checkpoint.write_checkpoint(job, self._world, gather)
        if problem is None and self._world.is_first:
            self._keeper.tidy(job.folder, job.step)
        return problem

    def _gather(self, value: Any) -> list[Any]:
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self._world.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def wait(self) -> None:
        """Until nothing is in flight. Raises what went wrong, once, on all processes."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Let what is in flight finish; a run that fails does not wait for ever for a process that is gone."""
        if self._thread is not None:
            self._thread.join(None if self._world.size == 1 else _GRACE_S)
            self._thread = None
