"""train(): the one loop of both stages. It knows an objective, a loader and a folder, and no model.

Position is counted in steps of the global batch; data order, learning rate and the draws of a step are pure
functions of it, so a run that was killed and started again ends with the same bits as one left alone.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from seqtok_core.foundation import faults, files
from seqtok_core.foundation.errors import ConfigError, MismatchError, Preempted, SeqtokError, StorageError
from seqtok_core.training import checkpoint, environment, run_folder
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.distributed import (
    World,
    any_of,
    connect,
    gather_objects,
    is_lost_contact,
    on_first,
    together,
)
from seqtok_core.training.engine import Engine
from seqtok_core.training.metrics import Means, MetricsLog
from seqtok_core.training.progress import Progress
from seqtok_core.training.schedules import crosses, rate_factor
from seqtok_core.training.speed import Speed, flops_per_image, peak_memory
from seqtok_core.training.stopping import StopRequest
from seqtok_core.training.summary import TrainResult
from seqtok_core.training.watch import Watch


class Loader(Protocol):
    """What train() asks of data: batches of this process, endless, from any step on."""

    @property
    def global_batch(self) -> int: ...

    def iterate(self, start_step: int) -> Iterator[Any]: ...


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
    and a checkpoint; StorageError when the disk is full; SeqtokError when max_skipped steps in a row had no
    finite gradient, or when another process is gone.
    """
    world, folder = World.from_environment(), Path(folder)
    if loader.global_batch != config.batch:
        raise ConfigError(f"the loader's global batch is {loader.global_batch}, train.batch={config.batch}")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    connect(world, 66 * config.timeout_minutes)  # a tenth more: who hangs shall say so before the others give up
    with _lost_contact_explained(folder, world), together(world), contextlib.ExitStack() as stack:
        hosts = gather_objects(world, platform.node())
        on_first(world, lambda: stack.enter_context(files.folder_lock(folder)))
        on_first(world, lambda: run_folder.prepare(folder, resolved, world, hosts, resume=resume, overwrite=overwrite))
        source = run_folder.start_from(folder, resume, world)
        batches, flops = _first_look(objective, loader, config, source, world)
        run = _Run(Engine(objective, config, world), config, folder, world)
        stack.callback(run.close)
        run.watch = stack.enter_context(Watch(world, folder, 60 * config.timeout_minutes, run.stop.ask))
        run.restore(source, resolved, Speed(flops, config, world))
        run.to_the_end(batches, on_sample)
        run.finish(on_finish)
        return run.result()


def _first_look(
    objective: nn.Module, loader: Loader, config: TrainConfig, source: Path | None, world: World
) -> tuple[Iterator[Any], float]:
    """The batches from where the run goes on, and the FLOPs per image; data that cannot be read ends it here."""
    start = 0 if source is None else int(checkpoint.read_manifest(source)["step"])
    if start >= config.steps:
        return iter(()), 0.0
    batches = iter(loader.iterate(start))
    first = next(batches)
    return itertools.chain([first], batches), flops_per_image(objective, first, config, world)


@contextlib.contextmanager
def _lost_contact_explained(folder: Path, world: World) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not is_lost_contact(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise SeqtokError(
            f"{folder}: process {world.rank} of {world.size} has lost the others ({reason}); one of them died or "
            "hangs, and its own message says why. The same command continues from the last checkpoint"
        ) from error


class _Run:
    """The moving parts of one train() call."""

    def __init__(self, engine: Engine, config: TrainConfig, folder: Path, world: World) -> None:
        self._engine, self._config, self._folder, self._world = engine, config, folder, world
        self.stop, self.watch = StopRequest(), contextlib.nullcontext()
        self._means = Means(world)
        self._speed: Speed | None = None
        self._problem: StorageError | None = None  # of this process's files; all are told after the step
        self._log: MetricsLog | None = None
        self._step = self._first_step = 0  # steps done
        self._skipped = self._in_a_row = 0
        self._seconds_before = 0.0
        self._resumed_from: str | None = None
        self._last: dict[str, float] = {}
        self._began = self._line_began = time.monotonic()
        self._line_step, self._waited = 0, 0.0

    def restore(self, source: Path | None, settings: dict[str, Any], speed: Speed) -> None:
        """Continue from a verified checkpoint, or begin."""
        self._speed = speed
        if source is not None:
            manifest = checkpoint.read_manifest(source)
            self._belongs(source, manifest)
            state = self._engine.load(source.parent, source.name)
            self._step = self._first_step = int(manifest["step"])
            self._skipped, self._in_a_row = state["skipped"], state["in_a_row"]
            self._seconds_before, self._last = state["seconds"], state["last"]
            self._means.restore(state["means"])
            self._resumed_from = source.name
        self._line_step = self._step
        if self._world.is_first:
            self._log = MetricsLog(self._folder, self._step, self._config.wandb, settings)
        self._began = self._line_began = time.monotonic()

    def _belongs(self, source: Path, manifest: dict[str, Any]) -> None:
        expected = self._about()
        if manifest["model"] != expected["model"]:
            raise MismatchError(f"{source}: saved from a model with other weights (names or shapes); not usable here")
        stage, processes = manifest["zero_stage"], manifest["processes"]
        if stage != self._config.zero_stage or (stage > 0 and processes != self._world.size):
            raise MismatchError(
                f"{source}: saved by {processes} processes with zero_stage={stage}, this run has "
                f"{self._world.size} with zero_stage={self._config.zero_stage}; start it as it was saved, or "
                "anew with --overwrite"
            )

    def _about(self) -> dict[str, Any]:
        return {
            "model": self._engine.fingerprint,
            "zero_stage": self._config.zero_stage,
            "processes": self._world.size,
            "precision": self._config.precision,
            "images": self._step * self._config.batch,
        }

    def to_the_end(
        self, batches: Iterator[Any], on_sample: Callable[[nn.Module, Path, int], None] | None
    ) -> None:
        config = self._config
        if self._step >= config.steps:
            return
        total, done = config.steps * config.batch, self._step * config.batch
        with self.stop, Progress(self._world, self._folder.name, total, done) as progress:
            while self._step < config.steps:
                self.watch.beat(f"step {self._step + 1}")
                self._one_step(batches)
                before, images = (self._step - 1) * config.batch, self._step * config.batch
                last = self._step == config.steps
                logged = last or self._step % config.log_every == 0
                if logged:
                    self._write_line()
                progress.update(images, self._last.get("loss") if logged else None)
                faults.hit("training.step", self._world.rank)
                stopping = any_of(self._world, self.stop.name is not None or self._problem is not None)
                if stopping:
                    self._raise_problem()
                if last or stopping or crosses(config.checkpoint_every, before, images):
                    self._save()
                if on_sample is not None and crosses(config.sample_every, before, images):
                    self._sample(on_sample, images)
                if stopping and not last:
                    self._give_way(self.stop.name)

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
        elif not self._engine.overflowed:  # fp16 looking for its scale is no fault
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
            if self._engine.scale.active:
                line["loss_scale"] = self._engine.scale.value
            rate = (self._step - self._line_step) * config.batch / spent
            line["images_per_s"], line["data_wait"] = round(rate, 2), round(self._waited / spent, 4)
            utilisation = self._speed.mfu(rate) if self._speed is not None else None
            if utilisation is not None:
                line["mfu"] = round(utilisation, 4)
            line["memory_gb"] = round(peak_memory(self._world.device) / 1e9, 3)
            line["seconds"] = round(self._seconds(), 2)
            try:
                self._log.write(line)
            except StorageError as error:
                self._problem = error
        self._line_began, self._line_step, self._waited = now, self._step, 0.0

    def _raise_problem(self) -> None:
        problem = next((p for p in gather_objects(self._world, self._problem) if p is not None), None)
        if problem is not None:
            raise self._with_needs(problem)

    def _with_needs(self, problem: StorageError) -> StorageError:
        """What is safe, and how much room the run needs to go on."""
        existing = checkpoint.all_in(self._folder / run_folder.CHECKPOINTS)
        if not existing:
            return problem
        needed = 1.2 * sum(p.stat().st_size for p in existing[-1].rglob("*") if p.is_file())
        return StorageError(
            f"{problem}; {existing[-1].name} is complete, and the next checkpoint needs {needed / 2**20:.1f} MiB"
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _save(self) -> None:
        self.watch.beat(f"checkpoint of step {self._step}")
        if self._log is not None:
            self._log.flush()
        state = {
            "means": self._means.state(),
            "skipped": self._skipped,
            "in_a_row": self._in_a_row,
            "seconds": self._seconds(),
            "last": self._last,
        }
        folder = self._folder / run_folder.CHECKPOINTS
        write = lambda path, tag: self._engine.save(path, tag, state)  # noqa: E731
        checkpoint.save(folder, self._step, self._world, write, self._about(), self._config.keep)

    def _sample(self, on_sample: Callable[[nn.Module, Path, int], None], images: int) -> None:
        try:
            self._with_averages("samples", lambda module, folder: on_sample(module, folder, images))
        except StorageError as error:
            raise self._with_needs(error) from error

    def _with_averages(self, name: str, action: Callable[[nn.Module, Path], None]) -> None:
        """Run `action` on rank 0 with the averaged weights and the run's folder `name`; the others wait."""
        self.watch.beat(f"{name} at step {self._step}")
        module, folder = self._engine.averaged_module(), self._folder / name

        def act() -> None:
            assert module is not None  # rank 0 has it
            with torch.no_grad(), files.storage_errors(folder):
                faults.hit(f"training.{name}")
                action(module, folder)

        on_first(self._world, act)

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
        if on_finish is not None:
            self._with_averages("model", on_finish)

    def result(self) -> TrainResult:
        """Collective."""
        world = self._world
        done = (self._step - self._first_step) * self._config.batch
        here = time.monotonic() - self._began
        images = self._step * self._config.batch
        rate = done / here if done else images / max(self._seconds_before, 1e-9)
        model = self._folder / "model"
        return TrainResult(
            self._folder,
            self._step,
            images,
            self._seconds(),
            rate,
            self._skipped,
            self._resumed_from,
            dict(self._last),
            processes=world.size,
            starts=environment.starts(self._folder),
            mfu=self._speed.mfu(rate) if self._speed is not None and done else None,
            peak_source=self._speed.peak_source if self._speed is not None else None,
            peak_memory=max(gather_objects(world, peak_memory(world.device))),
            memory_of="GPU memory" if world.device.type == "cuda" else "main memory",
            model=model if model.is_dir() else None,
        )

    def close(self) -> None:
        self._engine.close()
        if self._log is not None:
            self._log.close()
