"""train(): the one loop of both stages. It knows an objective, a loader and a folder, and no model.

Position is counted in steps of the global batch; data order, learning rate and the draws of a step are pure
functions of it, so a run that was killed and started again ends with the same bits as one left alone.

The way of a run: the folder is locked, compared, maybe cleared (run_folder.py), the newest whole checkpoint found
(checkpoints/checkpoint.py) and taken over (continuing.py), then run.py goes step by step:
1. the loader's next micro-batches, while journal/ledger.py counts how long they are waited for;
2. forward and backward under DeepSpeed (engine/engine.py; engine/precision.py scales a loss in fp16);
3. the update: rates (optimizer/schedules.py), clip, Muon and AdamW (optimizer/optim.py), average (optimizer/ema.py);
4. what is not finite is skipped on all processes and counted; the ledger writes means (journal/metrics.py);
5. processes agree whether to stop (processes/stopping.py); processes/watch.py ends one that hangs. Before the first
   step and after the last a signal ends the run at once: what it needs to go on is on the disk;
6. when due: a checkpoint (checkpoints/saving.py, maybe in the background), samples and at the end the model folder.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from seqtok_core.foundation import files, run_record
from seqtok_core.foundation.errors import ConfigError, SeqtokError
from seqtok_core.foundation.threads import ThreadChoice, choose_threads
from seqtok_core.training import run_folder
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.costs.disk import require_room
from seqtok_core.training.costs.speed import Speed, flops_per_image
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.journal import environment
from seqtok_core.training.journal.ledger import Ledger
from seqtok_core.training.journal.progress import say_start
from seqtok_core.training.journal.summary import TrainResult
from seqtok_core.training.processes.distributed import (
    World,
    connect,
    gather_objects,
    is_lost_contact,
    on_first,
    together,
)
from seqtok_core.training.processes.stopping import StopRequest
from seqtok_core.training.processes.watch import Watch
from seqtok_core.training.run import OnFinish, OnSample, Run, Validation


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
    resumable: frozenset[str] = frozenset(),
    resume: str = "auto",
    overwrite: bool = False,
    on_sample: OnSample | None = None,
    on_finish: OnFinish | None = None,
    validation: Validation | None = None,
    data: str = "",
) -> TrainResult:
    """Train `objective` in the run folder `folder`, continuing what is there; every process calls it.

    `objective(batch)` gives {"loss": mean over the micro-batch, further scalars}; `objective.muon_excluded()`
    names matrices that AdamW shall train, `objective.own_rates()` modules with a learning rate of their own (see
    optimizer/optim.py), `objective.checkpointed_blocks()` modules that activation
    checkpointing may compute twice. `resolved` is everything that must be equal for a run to be continued, but for
    the dotted paths `resumable` in it. `on_sample(module, folder / "samples", images)` and
    `on_finish(module, folder / "model")` run on rank 0 with a copy of the objective that has the averaged
    weights; so does `validation`, whose best model lies in folder / "best". `data` says in the first lines of the log
    what is learned from.

    Raises ConfigError, MismatchError, StorageError, DataError before the first step; Preempted after a signal
    and a checkpoint, at once where no step is made; StorageError when the disk is full; SeqtokError when
    max_skipped steps in a row had no finite gradient, or when another process is gone.
    """
    world, folder = World.from_environment(), Path(folder)
    if loader.global_batch != config.batch:
        raise ConfigError(f"the loader's global batch is {loader.global_batch}, `batch` is {config.batch}")
    connect(world, 66 * config.timeout_minutes)  # a tenth more: who hangs shall say so before the others give up
    with _endings_explained(folder, world), together(world), contextlib.ExitStack() as stack:
        on_first(world, lambda: run_folder.refuse_foreign(folder, overwrite))
        on_first(world, lambda: stack.enter_context(files.folder_lock(folder)))
        asked: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "resumable": resumable}
        anew = on_first(world, lambda: run_folder.begins_anew(folder, resolved, **asked))
        hosts = gather_objects(world, platform.node())
        threads = _take_threads(config, folder, world, hosts, anew)
        about = (folder, resolved, world, hosts, threads)
        on_first(world, lambda: run_folder.prepare_run_folder(*about, anew=anew, overwrite=overwrite))
        on_first(world, lambda: run_folder.require_writable(folder))
        source = run_folder.start_from(folder, resume, world)
        parameters = sum(p.numel() for p in objective.parameters())
        models = (on_finish is not None) + (validation is not None)
        on_first(world, lambda: require_room(folder, objective, config, models))
        say_start(folder, source, config, world, parameters, data)
        batches, speed = _first_look(objective, loader, config, source, world)
        engine, stop = Engine(objective, config, world), StopRequest()
        watch = stack.enter_context(Watch(world, folder, 60 * config.timeout_minutes, stop.ask))
        run = Run(engine, config, folder, world, Ledger(folder, config, world, speed), stop, watch, threads)
        stack.callback(run.close)
        run.restore(source, resolved)
        run.to_the_end(batches, on_sample, validation, on_finish)
        run.finish(on_finish)
        return run.result()


def _take_threads(config: TrainConfig, folder: Path, world: World, hosts: list[str], anew: bool) -> ThreadChoice:
    """The number that this process computes with from now on."""
    choice = choose_threads(
        config.threads,
        on_cpu=world.device.type == "cpu",
        processes=hosts.count(platform.node()),
        before=None if anew else environment.threads_of(folder),
    )
    if choice.chosen is not None:
        torch.set_num_threads(choice.chosen)
    if world.is_first and config.threads == "auto" and world.device.type == "cpu":
        print(f"{folder.name}: {choice.describe()}", file=sys.stderr, flush=True)
    return choice


def _first_look(
    objective: nn.Module, loader: Loader, config: TrainConfig, source: Path | None, world: World
) -> tuple[Iterator[Any], Speed]:
    """The batches from where the run goes on, and what they cost; data that cannot be read ends it here."""
    start = 0 if source is None else int(checkpoint.read_checkpoint_manifest(source)["step"])
    if start >= config.steps:
        return iter(()), Speed(0.0, config, world)
    batches = iter(loader.iterate(start))
    first = next(batches)
    return itertools.chain([first], batches), Speed(flops_per_image(objective, first, config, world), config, world)


@contextlib.contextmanager
def _endings_explained(folder: Path, world: World) -> Iterator[None]:
    """A signal before the first step, which ends the run at once, and another process that is gone."""
    try:
        with run_record.ending_at_once():
            yield
    except run_record.Stopped as stop:
        raise run_record.stopped_early(folder, str(stop)) from None
    except RuntimeError as error:
        if world.size == 1 or not is_lost_contact(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise SeqtokError(
            f"{folder}: process {world.rank} of {world.size} has lost the others ({reason}); one of them died or "
            "hangs, and its own message says why. The same command continues from the last checkpoint"
        ) from error
