"""seqtok tokenizer export: shard by shard, by processes of this machine or the ranks of torchrun, continued after a
kill to the same bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import typer

from data_pipelines.executors.progress import OnProgress, ProgressCount, silent
from data_pipelines.executors.run import run_tasks
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.output import Resume, refuse_source
from data_pipelines.shards.parts import ExportManifest
from seqtok.export.config import ExportConfig, is_single_file
from seqtok.export.plan import plan_export
from seqtok.export.say import announce, say_result
from seqtok.export.single_file import assemble, clean, is_assembled
from seqtok.export.stores import LatentStore, PartStore, Result, finish_parts
from seqtok.export.work import ExportTask, ExportWork, export_shard
from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError
from seqtok_core.training.processes.distributed import World, connect, gather_objects, on_first

_PATIENCE = 7 * 24 * 3600  # seconds that a rank waits for the others: shards differ, and nothing else is shared


def export_tokens(
    model: str | Path,
    data: Path,
    out: Path,
    config: ExportConfig,
    *,
    resume: str = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress = silent,
) -> Result | None:
    """Write latents or embeddings of every shard of `data` to `out`; the manifest, or None after a dry run.

    Raises DataError, ConfigError, MismatchError or StorageError; shards that are finished stay.
    """
    if resume not in ("auto", "never"):
        raise ConfigError(f"--resume {resume}: an export continues by itself; choose auto or never")
    mode: Literal["auto", "never"] = "auto" if resume == "auto" else "never"
    config.check_out(out)
    refuse_source(out, data)
    world = World.from_environment()
    work, spec = plan_export(model, data, out, config, world)
    tasks = [ExportTask(s, n, size) for s, sizes in work.source.sizes.items() for n, size in enumerate(sizes)]
    if dry_run:
        if world.is_first:
            announce(work, tasks, out, mode, overwrite)
        return None
    if world.size > 1:
        connect(world, _PATIENCE)
    if is_single_file(out) and on_first(world, lambda: _finished(out, work, overwrite, mode)):
        return None
    with _claimed(world, work, mode, overwrite):
        _encode(world, work, tasks, on_progress)
        result = on_first(world, lambda: _finish(work, spec, out))
        if isinstance(result, ExportManifest) and is_single_file(out):
            manifest = result
            on_first(world, lambda: assemble(out, manifest, work.stores[0].plan))
    if world.is_first:
        if is_single_file(out):
            clean(out)
        say_result(out, work, result)
    return result


def export_latents(
    model: str | Path,
    data: Path,
    out: Path,
    splits: Sequence[str] | None = None,
    batch: int | None = None,
    resume: str = "auto",
    overwrite: bool = False,
    processes: int = 1,
) -> Manifest:
    """Latent shards for a sequence model; captions.model travels along. See `export_tokens`."""
    config = ExportConfig(splits=tuple(splits or ()), batch=batch, processes=processes)
    result = export_tokens(model, data, out, config, resume=resume, overwrite=overwrite)
    assert isinstance(result, Manifest)
    return result


def _finished(out: Path, work: ExportWork, overwrite: bool, resume: Resume) -> bool:
    """Whether the one file is there already. Raises DataError where it is another export's, or with `resume=never`."""
    found = is_assembled(out, work.stores[0].plan, overwrite)
    if found and resume == "never":
        raise DataError(f"{out}: exists already; choose another file or use --overwrite")
    if found:
        clean(out)
        typer.echo(f"{out}: finished already")
    return found


@contextlib.contextmanager
def _claimed(world: World, work: ExportWork, resume: Resume, overwrite: bool) -> Iterator[None]:
    """Rank 0 holds the folder; the others begin when it does."""
    with contextlib.ExitStack() as held:
        on_first(world, lambda: held.enter_context(work.stores[0].open(overwrite=overwrite, resume=resume)))
        yield


def _encode(world: World, work: ExportWork, tasks: Sequence[ExportTask], on_progress: OnProgress) -> None:
    """This rank's shards. An error of one rank is raised on all, when each has done what it can."""
    mine = tasks[world.rank :: world.size]
    samples = sum(task.samples for task in mine)
    count = ProgressCount(on_progress if world.is_first else silent, len(mine), samples)
    failed: SeqtokError | None = None
    try:
        running = run_tasks(export_shard, work, mine, work.config.processes, on_start=count.begin, on_lost=count.lose)
        with contextlib.closing(running):  # type: ignore[type-var]
            for done in running:
                count.add(done.samples, done.encoded)
    except SeqtokError as error:
        failed = error
    for fault in gather_objects(world, failed):
        if fault is not None:
            raise fault


def _finish(work: ExportWork, spec: dict[str, Any], out: Path) -> Result:
    counts = {split: len(sizes) for split, sizes in work.source.sizes.items()}
    first = work.stores[0]
    assert work.encoder is not None
    if not is_single_file(out):
        work.encoder.captions.save(first.out / CAPTIONS_FILE)
    if isinstance(first, LatentStore):
        return first.finish(spec, counts)
    return finish_parts([store for store in work.stores if isinstance(store, PartStore)], counts, spec)
