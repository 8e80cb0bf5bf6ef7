"""What a run counts while it goes on, and the lines it writes: means, skipped steps, the clock.

All that a checkpoint must hold of it is in state(). Only rank 0 writes. The clock is a monotonic one, which the
system's time cannot turn back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seqtok_core.foundation.errors import StorageError
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.costs.speed import Speed, peak_memory
from seqtok_core.training.journal.metrics import Means, MetricsLog, Shown
from seqtok_core.training.optimizer.schedules import rate_factor
from seqtok_core.training.processes.distributed import World


class Ledger:
    """`speed`: what turns images/s into MFU."""

    def __init__(self, folder: Path, config: TrainConfig, world: World, speed: Speed) -> None:
        self._folder, self._config, self._world, self._speed = folder, config, world, speed
        self._means = Means(world)
        self._log: MetricsLog | None = None
        self.skipped = self.in_a_row = 0  # steps without a finite gradient
        self.last: dict[str, float] = {}  # values of the last line
        self.problem: StorageError | None = None  # a line that this process could not write
        self._seconds_before = 0.0
        self._began = self._line_began = time.monotonic()
        self._first_step = self._line_step = 0
        self._waited = 0.0

    def begin(self, step: int, state: dict[str, Any] | None, settings: dict[str, Any]) -> None:
        """Go on after `step` with the `state` of a checkpoint, or start. `settings`: what Weights & Biases shows."""
        if state is not None:
            self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
            self._seconds_before, self.last = state["seconds"], state["last"]
            self._means.restore(state["means"])
        self._first_step = self._line_step = step
        if self._world.is_first:
            self._log = MetricsLog(self._folder, step, self._config.wandb, settings)
        self._began = self._line_began = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Plain JSON values. Collective."""
        return {
            "means": self._means.state(),
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "seconds": self.seconds,
            "last": self.last,
        }

    def wait_for(self, fetch: Callable[[], Any]) -> Any:
        """fetch(), with its time on the account of the data."""
        asked = time.monotonic()
        result = fetch()
        self._waited += time.monotonic() - asked
        return result

    def add(self, values: list[dict[str, Tensor]], gradient_norm: Tensor) -> None:
        """A step was made; `values` of each of its micro-batches."""
        self.in_a_row = 0
        for value in values:
            self._means.add(value)
        self._means.add({"grad_norm": gradient_norm})

    def skip(self) -> None:
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1

    def write_line(self, step: int, loss_scale: float | None) -> float:
        """Close the account of the steps since the last line; returns their images/s. Collective."""
        now, config = time.monotonic(), self._config
        images, spent = step * config.batch, max(now - self._line_began, 1e-9)
        self.last = self._means.take()
        rate = (step - self._line_step) * config.batch / spent
        if self._log is not None:
            line: dict[str, float | int] = {"step": step, "images": images, **self.last}
            line["lr"] = config.lr * rate_factor(config, images - config.batch)
            line["skipped"] = self.skipped
            if loss_scale is not None:
                line["loss_scale"] = loss_scale
            line["images_per_s"], line["data_wait"] = round(rate, 2), round(self._waited / spent, 4)
            utilisation = self._speed.mfu(rate)
            if utilisation is not None:
                line["mfu"] = round(utilisation, 4)
            line["memory_gb"] = round(peak_memory(self._world.device) / 1e9, 3)
            line["seconds"] = round(self.seconds, 2)
            try:
                self._log.write(line)
            except StorageError as error:
                self.problem = error  # the others learn it after the step: alone, this process must not leave
        self._line_began, self._line_step, self._waited = now, step, 0.0
        return rate

    def show(self, step: int, shown: Shown | None) -> None:
        """Write down what was drawn, on rank 0."""
        if self._log is not None and shown is not None:
            self._log.show(step, step * self._config.batch, shown)

    def is_best(self, loss: float) -> bool:
        """On rank 0: whether no held-out loss so far was as low."""
        return self._log is not None and self._log.is_best(loss)

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        """Write down what held-out data say, on rank 0."""
        if self._log is not None:
            self._log.validated(step, step * self._config.batch, values)

    @property
    def best(self) -> dict[str, float] | None:
        """What held-out data said at the least loss; on rank 0."""
        return None if self._log is None else self._log.best

    @property
    def seconds(self) -> float:
        """Of all parts of the run."""
        return self._seconds_before + time.monotonic() - self._began

    def images_per_s(self, step: int) -> float:
        """Of this part of the run; of the parts before it when it had no step."""
        done = (step - self._first_step) * self._config.batch
        if done:
            return done / max(time.monotonic() - self._began, 1e-9)
        return step * self._config.batch / max(self._seconds_before, 1e-9)

    def mfu(self, step: int) -> tuple[float | None, str | None]:
        """Of this part of the run, and where the peak is from."""
        found = self._speed.mfu(self.images_per_s(step)) if step > self._first_step else None
        return found, self._speed.peak_source

    def flush(self) -> None:
        if self._log is not None:
            self._log.flush()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
