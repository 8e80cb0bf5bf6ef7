"""train(): the one loop of both stages. It knows an objective, a loader and a folder, and no model.

Position is counted in steps of the global batch; data order, learning rate and the draws of a step are pure
functions of it, so a run that was killed and started again ends with the same bits as one left alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from seqtok_core.foundation import faults, files
from seqtok_core.foundation.errors import ConfigError, Preempted, SeqtokError
from seqtok_core.training import checkpoint, continuing, run_folder
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.distributed import World, any_of, barrier, connect, gather_objects, on_first
from seqtok_core.training.engine import Engine
from seqtok_core.training.metrics import Means, MetricsLog
from seqtok_core.training.progress import Progress
from seqtok_core.training.saving import Saver
from seqtok_core.training.schedules import crosses, rate_factor
from seqtok_core.training.stopping import StopRequest


class Loader(Protocol):
    """What train() asks of data: batches of this process, endless, from any step on."""

    @property
    def global_batch(self) -> int: ...

    def iterate(self, start_step: int) -> Iterator[Any]: ...


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `seconds` counts all parts of a run that was continued."""

    folder: Path
    steps: int
    images: int
    seconds: float
    images_per_s: float
    skipped: int
    resumed_from: str | None
    last: dict[str, float]


def train(
    objective: nn.Module,
    loader: Loader,
    config: TrainConfig,
    folder: Path,
    *,
    resolved: dict[str, Any],
    resume: str = "auto",
    overwrite: bool = False,
    on_sample: Callable[[nn.Module, Path, int], None] | None = None,
    on_finish: Callable[[nn.Module, Path], None] | None = None,
) -> TrainResult:
    """Train `objective` in the run folder `folder`, continuing what is there; every process calls it.

    `objective(batch)` gives {"loss": mean over the micro-batch, further scalars}; `objective.muon_excluded()`
    names matrices that AdamW shall train. `on_sample(module, folder / "samples", images)` and
    `on_finish(module, folder / "model")` run on rank 0 with a copy of the objective that has the averaged
    weights.

    Raises ConfigError, MismatchError, StorageError, DataError before the first step; Preempted after a signal
    and a checkpoint; SeqtokError when max_skipped steps in a row had no finite gradient.
    """
    world, folder = World.from_environment(), Path(folder)
    if loader.global_batch != config.batch:
        raise ConfigError(f"the loader's global batch is {loader.global_batch}, train.batch={config.batch}")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    connect(world)
    with contextlib.ExitStack() as stack:
        on_first(world, lambda: stack.enter_context(files.folder_lock(folder)))
        on_first(world, lambda: run_folder.prepare(folder, resolved, world, resume=resume, overwrite=overwrite))
        source = run_folder.start_from(folder, resume, world)
        run = _Run(Engine(objective, config, world), config, folder, world)
        stack.callback(run.close)
        run.restore(source)
        run.to_the_end(loader, on_sample)
        run.finish(on_finish)
        return run.result()


class _Run:
    """The moving parts of one train() call."""

    def __init__(self, engine: Engine, config: TrainConfig, folder: Path, world: World) -> None:
        self._engine, self._config, self._folder, self._world = engine, config, folder, world
        self._saver = Saver(world, config.background_save)
        self._means = Means(world)
        self._log: MetricsLog | None = None
        self._step = self._first_step = 0  # steps done
        self._skipped = self._in_a_row = 0
        self._seconds_before = 0.0
        self._resumed_from: str | None = None
        self._last: dict[str, float] = {}
        self._began = self._line_began = time.monotonic()
        self._line_step, self._waited = 0, 0.0

    def restore(self, source: Path | None) -> None:
        """Continue from a verified checkpoint, or begin."""
        if source is not None:
            self._step, state = continuing.take_over(source, self._engine, self._config, self._world)
            self._first_step = self._step
            self._skipped, self._in_a_row = state["skipped"], state["in_a_row"]
            self._seconds_before, self._last = state["seconds"], state["last"]
            self._means.restore(state["means"])
            self._resumed_from = source.name
        self._line_step = self._step
        if self._world.is_first:
            self._log = MetricsLog(self._folder, self._step)
        self._began = self._line_began = time.monotonic()

    def to_the_end(self, loader: Loader, on_sample: Callable[[nn.Module, Path, int], None] | None) -> None:
        config = self._config
        if self._step >= config.steps:
            return
        batches = iter(loader.iterate(self._step))
        total, done = config.steps * config.batch, self._step * config.batch
        with StopRequest() as stop, Progress(self._world, self._folder.name, total, done) as progress:
            while self._step < config.steps:
                self._one_step(batches)
                before, images = (self._step - 1) * config.batch, self._step * config.batch
                last = self._step == config.steps
                logged = last or self._step % config.log_every == 0
                if logged:
                    self._write_line()
                progress.update(images, self._last.get("loss") if logged else None)
                faults.hit("training.step", self._world.rank)
                stopping = any_of(self._world, stop.name is not None or self._saver.failed)
                if stopping:
                    self._saver.wait()  # raises what failed
                due = crosses(config.checkpoint_every, before, images) or crosses(config.keep_every, before, images)
                if last or stopping or due:
                    self._save()
                if on_sample is not None and crosses(config.sample_every, before, images):
                    self._sample(on_sample, images)
                if stopping and not last:
                    self._saver.wait()
                    self._give_way(stop.name)

    def _one_step(self, batches: Iterator[Any]) -> None:
        config, world = self._config, self._world
        # for what draws from torch's own generator (dropout): a function of the position, like everything
        torch.manual_seed(((config.seed * 1_000_003 + self._step) * world.size + world.rank) % 2**63)
        values, keys = [], []
        for _ in range(config.accumulation(world.size)):
            asked = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - asked
            keys += list(batch.keys)
            value = self._engine.forward(batch.to(world.device))
            self._engine.backward(value["loss"])
            applied = self._engine.step(self._step * config.batch)
            values.append(value)
        self._step += 1
        if applied:
            self._in_a_row = 0
            for value in values:
                self._means.add(value)
            self._means.add({"grad_norm": self._engine.gradient_norm})
        else:
            self._skipped, self._in_a_row = self._skipped + 1, self._in_a_row + 1
            if self._in_a_row >= config.max_skipped:
                self._give_up(keys)

    def _write_line(self) -> None:
        now, config = time.monotonic(), self._config
        spent, images = max(now - self._line_began, 1e-9), self._step * config.batch
        self._last = self._means.take()
        if self._log is not None:
            line: dict[str, float | int] = {"step": self._step, "images": images, **self._last}
            line["lr"] = config.lr * rate_factor(config, images - config.batch)
            line["skipped"] = self._skipped
            line["images_per_s"] = round((self._step - self._line_step) * config.batch / spent, 2)
            line["data_wait"] = round(self._waited / spent, 4)
            line["seconds"] = round(self._seconds(), 2)
            self._log.write(line)
        self._line_began, self._line_step, self._waited = now, self._step, 0.0

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _save(self) -> None:
        if self._log is not None:
            self._log.flush()
        config = self._config
        state = {
            "means": self._means.state(),
            "skipped": self._skipped,
            "in_a_row": self._in_a_row,
            "seconds": self._seconds(),
            "last": self._last,
            **self._engine.state(),
        }
        keep = checkpoint.Keep(config.keep, config.keep_every, config.batch)
        folder, pieces = self._folder / run_folder.CHECKPOINTS, self._engine.pieces()
        about = continuing.describe(self._engine, config, self._world, self._step)
        self._saver.save(checkpoint.Job(folder, self._step, pieces, state, about, keep))

    def _sample(self, on_sample: Callable[[nn.Module, Path, int], None], images: int) -> None:
        module = self._engine.averaged_module()
        if module is not None:
            with torch.no_grad():
                on_sample(module, self._folder / "samples", images)
        barrier(self._world)

    def _give_way(self, signal_name: str | None) -> None:
        name = next(n for n in gather_objects(self._world, signal_name) if n is not None)
        note = {"step": self._step, "images": self._step * self._config.batch, "signal": name}
        on_first(self._world, lambda: files.write_json(self._folder / "preempted.json", note))
        raise Preempted(
            f"{self._folder}: stopped by {name} after step {self._step}, everything saved; "
            "start the same command again to continue"
        )

    def _give_up(self, keys: list[str]) -> None:
        everyone = [key for part in gather_objects(self._world, keys) for key in part]
        path = self._folder / "bad_batch.json"
        on_first(self._world, lambda: files.write_json(path, {"step": self._step, "keys": everyone}))
        raise SeqtokError(
            f"{self._folder}: no finite gradient in {self._in_a_row} steps in a row (step {self._step}); the "
            f"samples of the last one are in {path.name}. Lower train.lr and train.muon_lr, or look at them"
        )

    def finish(self, on_finish: Callable[[nn.Module, Path], None] | None) -> None:
        self._saver.wait()
        if on_finish is not None:
            module = self._engine.averaged_module()
            if module is not None:
                with torch.no_grad():
                    on_finish(module, self._folder / "model")
        barrier(self._world)

    def result(self) -> TrainResult:
        done = (self._step - self._first_step) * self._config.batch
        here = time.monotonic() - self._began
        images = self._step * self._config.batch
        seconds = self._seconds()
        rate = done / here if done else images / max(self._seconds_before, 1e-9)
        return TrainResult(
            self._folder,
            self._step,
            images,
            seconds,
            rate,
            self._skipped,
            self._resumed_from,
            dict(self._last),
        )

    def close(self) -> None:
        self._saver.close()
        self._engine.close()
        if self._log is not None:
            self._log.close()
