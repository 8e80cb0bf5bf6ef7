"""What a run writes down: metrics.jsonl (one line per `log_every` steps, read by reports), TensorBoard, and
Weights & Biases where it is asked for.

A resumed run cuts the file back to its checkpoint, so that the finished file equals that of an undisturbed
run but for the fields of the clock.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqtok_core.foundation import faults, files
from seqtok_core.training.config import WandbConfig
from seqtok_core.training.journal.wandb_log import WandbLog
from seqtok_core.training.processes.distributed import World, mean_over

log = logging.getLogger(__name__)

SCORES = "samples/scores.jsonl"  # in the run's folder: what was drawn on the way, a line each time
VALIDATION = "validation.jsonl"  # in the run's folder: what held-out data say, a line each time
CLOCK_FIELDS = ("seconds", "images_per_s", "data_wait", "mfu", "memory_gb")


@dataclass(frozen=True)
class Shown:
    """What a run drew on its way: how good it is, by name, and the pictures, (3, H, W) uint8."""

    scores: Mapping[str, float]
    pictures: Tensor | None = None


class Means:
    """Running means of named scalars between two lines, without a device synchronisation per step."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().to(self._world.device, torch.float64)  # the gradient's norm may lie elsewhere
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def state(self) -> dict[str, Any]:
        """Plain numbers for a checkpoint, equal on all processes. Collective."""
        if not self._sums:
            return {"sums": {}, "counts": {}}
        names = sorted(self._sums)
        sums = mean_over(self._world, torch.stack([self._sums[name] for name in names])).tolist()
        return {"sums": dict(zip(names, sums, strict=True)), "counts": dict(self._counts)}

    def restore(self, state: dict[str, Any]) -> None:
        device = self._world.device
        self._sums = {n: torch.tensor(s, dtype=torch.float64, device=device) for n, s in state["sums"].items()}
        self._counts = dict(state["counts"])

    def take(self) -> dict[str, float]:
        """Mean of each name over steps and processes, then start anew. Collective."""
        state = self.state()
        self._sums, self._counts = {}, {}
        return {name: total / state["counts"][name] for name, total in state["sums"].items()}


class MetricsLog:
    """Rank 0's pen. `start_step`: lines after it are dropped first. `settings`: what Weights & Biases shows."""

    def __init__(
        self, folder: Path, start_step: int, wandb: WandbConfig | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path, self._scores = folder / "metrics.jsonl", folder / SCORES
        self._validation = folder / VALIDATION
        for path in (self._path, self._scores, self._validation):
            _cut_back(path, start_step)
        self.best = _best_of(self._validation)  # {"step", "images", "loss", ...} of the least loss so far
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(_quiet_board())
        with files.storage_errors(self._path):
            self._stream = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (lives as long as the run)
        with files.storage_errors(folder / "tensorboard"):
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)
        self._wandb = WandbLog(wandb, folder, settings or {}) if wandb is not None else None

    def write(self, line: dict[str, float | int]) -> None:
        """Append one line; `line` holds "step" and "images" too. What is not finite becomes null."""
        clean = {name: value if math.isfinite(value) else None for name, value in line.items()}
        with files.storage_errors(self._path):
            faults.hit("metrics.write")
            self._stream.write(json.dumps(clean) + "\n")
            self._stream.flush()
            for name, value in clean.items():
                if name not in ("step", "images") and value is not None:
                    self._board.add_scalar(name, value, line["step"])
        if self._wandb is not None:
            self._wandb.write(clean)

    def show(self, step: int, images: int, shown: Shown) -> None:
        """Append a line of scores, and put them and the pictures on the board."""
        self._append(self._scores, "samples", step, images, shown.scores)
        if shown.pictures is not None:
            with files.storage_errors(self._scores):
                self._board.add_image("samples", shown.pictures.cpu(), step)

    def is_best(self, loss: float) -> bool:
        """Whether no held-out loss so far was as low."""
        return math.isfinite(loss) and (self.best is None or loss < self.best["loss"])

    def validated(self, step: int, images: int, values: Mapping[str, float]) -> None:
        """Append a line of what held-out data say; `values` holds "loss"."""
        if self.is_best(values["loss"]):
            self.best = {"step": step, "images": images, **values}
        line = self._append(self._validation, "validation", step, images, values)
        if self._wandb is not None:
            self._wandb.write({f"validation/{name}": value for name, value in line.items()} | {"step": step})

    def _append(
        self, path: Path, group: str, step: int, images: int, values: Mapping[str, float]
    ) -> dict[str, float | None]:
        """A line of a file, and the same on the board. What is not finite becomes null."""
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with files.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step, "images": images, **clean}) + "\n")
            for name, value in clean.items():
                if value is not None:
                    self._board.add_scalar(f"{group}/{name}", value, step)
        return clean

    def flush(self) -> None:
        """Before a checkpoint: what it believes to be written is on the disk."""
        with files.storage_errors(self._path):
            os.fsync(self._stream.fileno())
            self._board.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a disk that is full has been reported by write or flush
            self._stream.close()
            self._board.close()
        self._quiet.close()
        if self._wandb is not None:
            self._wandb.close()


@contextlib.contextmanager
def _quiet_board() -> Iterator[None]:
    """TensorBoard writes in a thread of its own. What stops it there is raised here by the next write, as one message:
    the thread's own traceback says it a second time."""
    before = threading.excepthook

    def told(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    threading.excepthook = told
    try:
        yield
    finally:
        threading.excepthook = before


def _cut_back(path: Path, step: int) -> None:
    """Lines that cannot be read, as a crash or a disk leaves them, go too; those before the last one with a warning."""
    if not path.exists():
        return
    with files.storage_errors(path):
        lines = [line for line in path.read_bytes().split(b"\n") if line]
    steps = [_step_of(line) for line in lines]
    damaged = sum(found is None for found in steps[:-1])
    if damaged:
        log.warning("%s: %d damaged lines are left out", path, damaged)
    kept = [line for line, found in zip(lines, steps, strict=True) if found is not None and found <= step]
    with files.atomic_write(path) as stream:
        stream.writelines(line + b"\n" for line in kept)


def _step_of(line: bytes) -> int | None:
    """The line's step; None for a line that is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (KeyError, TypeError, ValueError, OverflowError):  # of JSON and of UTF-8, too
        return None


def _best_of(path: Path) -> dict[str, float] | None:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    told = [row for row in rows if row.get("loss") is not None]
    return min(told, key=lambda row: row["loss"]) if told else None
