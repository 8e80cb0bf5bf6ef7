"""A run while it is trained: engine, ledger, saver and stop in one object, moved step by step by loop.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqtok_core.foundation import faults, files, run_record
from seqtok_core.foundation.errors import Preempted, SeqtokError, StorageError
from seqtok_core.foundation.threads import ThreadChoice
from seqtok_core.training import continuing, run_folder
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.checkpoints.keeping import Keep
from seqtok_core.training.checkpoints.saving import Saver
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.costs.speed import peak_memory
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.journal import environment
from seqtok_core.training.journal.ledger import Ledger
from seqtok_core.training.journal.metrics import Shown
from seqtok_core.training.journal.progress import ProgressBar
from seqtok_core.training.journal.slowdown import Slowdown
from seqtok_core.training.journal.summary import BEST, TrainResult
from seqtok_core.training.optimizer.schedules import crosses
from seqtok_core.training.processes.distributed import World, any_of, gather_objects, on_first
from seqtok_core.training.processes.stopping import StopRequest
from seqtok_core.training.processes.watch import Watch

OnSample = Callable[[nn.Module, Path, int], Shown | None]
OnFinish = Callable[[nn.Module, Path], None]


@dataclass(frozen=True)
class Validation:
    """Held-out data, looked at every so many images. `measure` gives, of the averaged weights on rank 0, "loss" and
    further values; of the least loss the model is kept."""

    every: int
    measure: Callable[[nn.Module], Mapping[str, float]]


class Run:
    """The moving parts of one train() call."""

    def __init__(
        self,
        engine: Engine,
        config: TrainConfig,
        folder: Path,
        world: World,
        ledger: Ledger,
        stop: StopRequest,
        watch: Watch,
        threads: ThreadChoice,
    ) -> None:
        self._engine, self._config, self._folder, self._world = engine, config, folder, world
        self._ledger, self._stop, self._watch = ledger, stop, watch
        keep = Keep(config.keep, config.keep_every, config.batch)
        self._saver = Saver(world, keep, config.background_save)
        self._slowdown = Slowdown(threads.cores)
        self._step = 0  # steps done
        self._resumed_from: str | None = None

    def restore(self, source: Path | None, settings: dict[str, Any]) -> None:
        """Continue from a verified checkpoint, or begin."""
        state = None
        if source is not None:
            self._step, state = continuing.take_over(source, self._engine, self._config, self._world)
            self._resumed_from = source.name
        self._ledger.begin(self._step, state, settings)

    def to_the_end(
        self,
        batches: Iterator[Any],
        on_sample: OnSample | None,
        validation: Validation | None,
        on_finish: OnFinish | None,
    ) -> None:
        config = self._config
        if self._step >= config.steps:
            return
        total, done = config.steps * config.batch, self._step * config.batch
        with self._stop, ProgressBar(self._world, self._folder.name, total, done) as progress:
            while self._step < config.steps:
                self._watch.beat("step", self._step + 1)
                self._one_step(batches)
                before, images = (self._step - 1) * config.batch, self._step * config.batch
                last = self._step == config.steps
                logged = last or self._step % config.log_every == 0
                if logged:
                    scale = self._engine.scale
                    rate = self._ledger.write_line(self._step, scale.value if scale.active else None)
                    progress.say(self._slowdown.look(rate))
                progress.update(images, self._ledger.last.get("loss") if logged else None)
                faults.hit("training.step", self._world.rank)
                stopping = self._agree_to_stop()
                due = crosses(config.save_every, before, images) or crosses(config.keep_every, before, images)
                if validation is not None and (last or crosses(validation.every, before, images)):
                    self._validate(validation, on_finish)  # before the checkpoint, which says that it is done
                if last or stopping or due:
                    self._save()
                if on_sample is not None and crosses(config.sample_every, before, images):
                    self._sample(on_sample, images)
                stopping = stopping or (last and self._agree_to_stop())  # asked while the last checkpoint was written
                if stopping:
                    self._saver.wait()
                    self._give_way(self._stop.name)

    def _one_step(self, batches: Iterator[Any]) -> None:
        config, world = self._config, self._world
        # for what draws from torch's own generator (dropout): a function of the position, like everything
        torch.manual_seed(((config.seed * 1_000_003 + self._step) * world.size + world.rank) % 2**63)
        values, keys = [], []
        for _ in range(config.accumulation(world.size)):
            batch = self._ledger.wait_for(lambda: next(batches))
            keys += list(batch.keys)
            value = self._engine.forward(batch.to(world.device))
            self._engine.backward(value["loss"])
            applied = self._engine.step(self._step * config.batch)
            values.append(value)
        self._step += 1
        if applied:
            self._ledger.add(values, self._engine.gradient_norm)
        elif not self._engine.overflowed:  # fp16 looking for its scale is no fault
            self._ledger.skip()
            if self._ledger.in_a_row >= config.max_skipped:
                self._give_up(keys)

    def _agree_to_stop(self) -> bool:
        """Whether any process was asked to stop. Raises what any of them could not write."""
        failed = self._saver.failed or self._ledger.problem is not None
        if not any_of(self._world, failed or self._stop.name is not None):
            return False
        self._saver.wait()  # raises what failed
        problems = gather_objects(self._world, self._ledger.problem)
        for problem in problems:
            if problem is not None:
                raise self._with_needs(problem)
        return True

    def _with_needs(self, problem: StorageError) -> StorageError:
        """What is safe, and how much room the run needs to go on."""
        newest = checkpoint.newest_whole(self._folder / run_folder.CHECKPOINTS)
        if newest is None:
            return problem
        needed = 1.2 * sum(p.stat().st_size for p in newest.rglob("*") if p.is_file())
        return StorageError(
            f"{problem}; {newest.name} is complete, and the next checkpoint needs {needed / 2**20:.1f} MiB"
        )

    def _save(self) -> None:
        self._watch.beat("checkpoint of step", self._step)
        on_first(self._world, self._ledger.flush)
        config = self._config
        state = {**self._ledger.state(), **self._engine.state()}
        folder, pieces = self._folder / run_folder.CHECKPOINTS, self._engine.pieces()
        about = continuing.describe_state(self._engine, config, self._world, self._step)
        self._saver.save(checkpoint.SaveJob(folder, self._step, pieces, state, about))

    def _sample(self, on_sample: OnSample, images: int) -> None:
        def draw(module: nn.Module, folder: Path) -> None:
            self._ledger.show(self._step, on_sample(module, folder, images))

        try:
            self._with_averages("samples", draw)
        except StorageError as error:
            raise self._with_needs(error) from error

    def _validate(self, validation: Validation, on_finish: OnFinish | None) -> None:
        def look(module: nn.Module, _: Path) -> None:
            values = validation.measure(module)
            if on_finish is not None and self._ledger.is_best(values["loss"]):
                _replace(self._folder / BEST, lambda folder: on_finish(module, folder))
            self._ledger.validated(self._step, values)

        try:
            self._with_averages("validation", look)
        except StorageError as error:
            raise self._with_needs(error) from error

    def _with_averages(self, name: str, action: OnFinish) -> None:
        """Run `action` on rank 0 with the averaged weights and the run's folder `name`; the others wait."""
        self._watch.beat(f"{name} at step", self._step)
        module, folder = self._engine.averaged_module(), self._folder / name

        def act() -> None:
            assert module is not None  # rank 0 has it
            with torch.no_grad(), files.storage_errors(folder):
                faults.hit(f"training.{name}")
                action(module, folder)

        on_first(self._world, act)

    def _give_way(self, asked_by: str | None) -> None:
        name = next(n for n in gather_objects(self._world, asked_by) if n is not None)
        images = self._step * self._config.batch
        on_first(self._world, lambda: run_record.note_stop(self._folder, name, self._step, images))
        raise Preempted(
            f"{self._folder}: stopped by {name} after step {self._step}, everything saved; "
            "start the same command again to continue"
        )

    def _give_up(self, keys: list[str]) -> None:
        everyone = [key for part in gather_objects(self._world, keys) for key in part]
        path = self._folder / "bad_batch.json"
        on_first(self._world, lambda: files.write_json(path, {"step": self._step, "keys": everyone}))
        raise SeqtokError(
            f"{self._folder}: no finite gradient in {self._ledger.in_a_row} steps in a row (step {self._step}); the "
            f"samples of the last one are in {path.name}. Lower `lr` and `muon_lr`, or look at them"
        )

    def finish(self, on_finish: OnFinish | None) -> None:
        """Write the model folder. A signal ends this at once: the last checkpoint is written."""
        try:
            self._saver.wait()
            if on_finish is not None:
                self._with_averages("model", on_finish)
        except run_record.Stopped as stop:
            run_record.note_stop(self._folder, str(stop), self._step, self._step * self._config.batch)
            raise Preempted(
                f"{self._folder}: stopped by {stop} while the model was written, everything saved; start the same "
                "command again to continue"
            ) from None
        on_first(self._world, lambda: run_record.forget_stop(self._folder))

    def result(self) -> TrainResult:
        """Collective."""
        world, ledger, model = self._world, self._ledger, self._folder / "model"
        mfu, peak_source = ledger.mfu(self._step)
        return TrainResult(
            self._folder,
            self._step,
            self._step * self._config.batch,
            ledger.seconds,
            ledger.images_per_s(self._step),
            ledger.skipped,
            self._resumed_from,
            dict(ledger.last),
            processes=world.size,
            starts=environment.starts(self._folder),
            mfu=mfu,
            peak_source=peak_source,
            peak_memory=max(gather_objects(world, peak_memory(world.device))),
            memory_of="GPU memory" if world.device.type == "cuda" else "main memory",
            model=model if model.is_dir() else None,
            best=ledger.best,
        )

    def close(self) -> None:
        self._saver.close()
        self._engine.close()
        self._ledger.close()


def _replace(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder aside and put it in the place of the one that is there."""
    aside, old = (folder.with_name(f".{folder.name}.{word}.tmp") for word in ("new", "old"))
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    write(aside)
    faults.hit("training.best")
    if folder.exists():
        os.replace(folder, old)
    os.replace(aside, folder)
    shutil.rmtree(old, ignore_errors=True)
