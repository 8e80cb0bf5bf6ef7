"""seqtok tokenizer export: shard by shard, by processes of this machine or the ranks of torchrun, continued after a
kill to the same bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import typer

from data_pipelines import latent_check
from data_pipelines.executors import run_tasks
from data_pipelines.export_parts import ExportManifest
from data_pipelines.latent_shards import LatentWriter
from data_pipelines.manifest import Manifest
from data_pipelines.output import Resume, refuse_used
from data_pipelines.prepare import Progress
from data_pipelines.vocabulary import FILE as CAPTIONS_FILE
from seq_tokenizer import SeqTokenizer
from seqtok.export.config import FORMAT_VERSION, ExportConfig, is_single_file
from seqtok.export.encode import Encoder
from seqtok.export.single_file import assemble, clean, is_assembled, parts_folder
from seqtok.export.source import Source, open_source
from seqtok.export.stores import LatentStore, PartStore, Result, finish_parts
from seqtok.export.work import Done, Task, Work, export_shard
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError
from seqtok_core.training.distributed import World, connect, gather_objects, on_first

_PATIENCE = 7 * 24 * 3600  # seconds that a rank waits for the others: shards differ, and nothing else is shared
_BATCH = {"cpu": 64, "cuda": 256}  # pictures or captions encoded at once; on a CPU by each thread
_GPU_THREADS = 2  # one slice is decoded while another is encoded
OnProgress = Callable[[Progress], None]


def export(
    model: str | Path,
    data: Path,
    out: Path,
    config: ExportConfig,
    *,
    resume: str = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress = lambda progress: None,
) -> Result | None:
    """Write latents or embeddings of every shard of `data` to `out`; the manifest, or None after a dry run.

    Raises DataError, ConfigError, MismatchError or StorageError; shards that are finished stay.
    """
    if resume not in ("auto", "never"):
        raise ConfigError(f"--resume {resume}: an export continues by itself; choose auto or never")
    mode: Literal["auto", "never"] = "auto" if resume == "auto" else "never"
    config.check_out(out)
    world = World.from_environment()
    work, spec = _prepare(model, data, out, config, world)
    tasks = [Task(s, n, size) for s, sizes in work.source.sizes.items() for n, size in enumerate(sizes)]
    if dry_run:
        if world.is_first:
            _announce(work, tasks, out, mode, overwrite)
        return None
    if is_single_file(out) and is_assembled(out, work.stores[0].plan, overwrite):
        clean(out)
        typer.echo(f"{out}: finished already")
        return None
    with _claimed(world, work, mode, overwrite):
        _encode(world, work, tasks, on_progress)
        result = on_first(world, lambda: _finish(work, spec, out))
        if isinstance(result, ExportManifest) and is_single_file(out):
            manifest = result
            on_first(world, lambda: assemble(out, manifest))
    if world.is_first:
        if is_single_file(out):
            clean(out)
        _report(out, work, result)
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
    """Latent shards for a sequence model; captions.model travels along. See `export`."""
    config = ExportConfig(splits=tuple(splits or ()), batch=batch, processes=processes)
    result = export(model, data, out, config, resume=resume, overwrite=overwrite)
    assert isinstance(result, Manifest)
    return result


def _prepare(
    model: str | Path, data: Path, out: Path, config: ExportConfig, world: World
) -> tuple[Work, dict[str, Any]]:
    folder = model_folder.locate(model)
    if config.processes > 1 and world.device.type != "cpu":
        raise ConfigError(
            "--processes is for CPUs; on several GPUs: torchrun --nproc-per-node N -m seqtok tokenizer export …"
        )
    on_cpu = world.device.type == "cpu"
    threads = max(1, torch.get_num_threads() // config.processes) if on_cpu else _GPU_THREADS
    encoder = Encoder(folder, str(world.device), threads)
    tokenizer, spec = encoder.tokenizer, encoder.tokenizer.spec
    prefixes = _prefixes(tokenizer, config)
    source = open_source(Path(data), config.splits, tokenizer.config.image_size)
    fingerprints = {
        "format_version": FORMAT_VERSION,
        "tokenizer_id": spec.tokenizer_id,
        "captions_sha256": encoder.captions.sha256,
        "data": source.fingerprint,
    }
    stores = _stores(out, config, source, tokenizer, fingerprints, prefixes)
    work = Work(
        model=folder,
        source=source,
        config=config,
        stores=stores,
        prefixes=prefixes,
        statistics=latent_check.Statistics.from_spec(spec.to_json()),
        fingerprints=fingerprints,
        device=str(world.device),
        threads=threads,
        batch=config.batch or _BATCH[world.device.type],
        encoder=encoder,
    )
    return work, spec.to_json()


def _stores(
    out: Path,
    config: ExportConfig,
    source: Source,
    tokenizer: SeqTokenizer,
    fingerprints: dict[str, Any],
    prefixes: tuple[int, ...],
) -> list[LatentStore] | list[PartStore]:
    form, model = config.format_of(out), tokenizer.config
    plan: dict[str, Any] = {**fingerprints, "splits": list(source.sizes)}
    if config.what == "latents":
        plan["on_outlier"] = config.on_outlier
    if config.what == "latents" and form == "webdataset":
        shape = (model.num_latents, model.latent_dim)
        name = f"{source.name}_latents"
        return [LatentStore(out, LatentWriter(out, shape=shape, source=source.manifest, plan=plan, name=name))]
    plan |= {"tables": list(config.tables), "format": form, "prefixes": list(prefixes), "name": source.name}
    folder = parts_folder(out) if is_single_file(out) else out
    width = model.text.embed_dim if model.text else 0
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (model.num_latents, model.latent_dim),
        "images": (width,) if form == "parquet" else (len(prefixes), width),
        "texts": (width,),
    }
    return [
        PartStore(table, folder, source.name, form, {"export": plan}, prefixes, shapes[table], fingerprints)
        for table in config.tables
    ]


def _prefixes(tokenizer: SeqTokenizer, config: ExportConfig) -> tuple[int, ...]:
    if config.what == "latents":
        return ()
    if tokenizer.text is None:
        raise DataError("this tokenizer was trained without captions: it has no text-image space to embed into")
    if "images" not in config.tables:
        return ()
    length = tokenizer.config.num_latents
    for k in config.prefixes:
        if k > length:
            raise ConfigError(f"--prefix {k}: choose from 1 to {length}")
    return tuple(sorted(config.prefixes)) or (length,)


@contextlib.contextmanager
def _claimed(world: World, work: Work, resume: Resume, overwrite: bool) -> Iterator[None]:
    """Rank 0 holds the folder; the others begin when it does."""
    if world.size > 1:
        connect(world, _PATIENCE)
    with contextlib.ExitStack() as held:
        on_first(world, lambda: held.enter_context(work.stores[0].open(overwrite=overwrite, resume=resume)))
        yield


def _encode(world: World, work: Work, tasks: Sequence[Task], on_progress: OnProgress) -> None:
    """This rank's shards. An error of one rank is raised on all, when each has done what it can."""
    mine = tasks[world.rank :: world.size]
    tally = _Tally(mine, on_progress if world.is_first else _silent)
    failed: SeqtokError | None = None
    try:
        running = run_tasks(export_shard, work, mine, work.config.processes, on_start=tally.begin, on_lost=tally.lose)
        with contextlib.closing(running):  # type: ignore[type-var]
            for done in running:
                tally.add(done)
    except SeqtokError as error:
        failed = error
    for fault in gather_objects(world, failed):
        if fault is not None:
            raise fault


def _silent(progress: Progress) -> None:
    """Rank 0 alone shows where it stands; the others have as much to do."""


class _Tally:
    """Where this rank's share stands, told to `on_progress` at every change."""

    def __init__(self, tasks: Sequence[Task], on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._now = Progress("shards", shards=len(tasks), samples=sum(task.samples for task in tasks))
        on_progress(self._now)

    def begin(self, task: Task) -> None:
        self._change(shards_begun=1)

    def lose(self, task: Task) -> None:
        self._change(workers_lost=1)

    def add(self, done: Done) -> None:
        self._change(shards_done=1, samples_done=done.samples, samples_built=done.encoded)

    def _change(self, **more: int) -> None:
        counts = {name: getattr(self._now, name) + count for name, count in more.items()}
        self._now = replace(self._now, **counts)
        self._on_progress(self._now)


def _finish(work: Work, spec: dict[str, Any], out: Path) -> Result:
    counts = {split: len(sizes) for split, sizes in work.source.sizes.items()}
    first = work.stores[0]
    assert work.encoder is not None
    if not is_single_file(out):
        work.encoder.captions.save(first.out / CAPTIONS_FILE)
    if isinstance(first, LatentStore):
        return first.finish(spec, counts)
    return finish_parts([store for store in work.stores if isinstance(store, PartStore)], counts, spec)


def _announce(work: Work, tasks: Sequence[Task], out: Path, resume: Resume, overwrite: bool) -> None:
    first = work.stores[0]
    if is_single_file(out):
        is_assembled(out, first.plan, overwrite)
    refuse_used(first.out, first.plan, overwrite=overwrite, resume=resume)
    done = 0 if overwrite else sum(all(s.is_done(t.split, t.number) for s in work.stores) for t in tasks)
    form, tables = work.config.format_of(out), " and ".join(store.table for store in work.stores)
    for split, sizes in work.source.sizes.items():
        typer.echo(f"{out}: would write {tables} of split {split}, {sum(sizes)} pictures in {len(sizes)} shards")
    typer.echo(f"{out}: as {form}, tokenizer {work.fingerprints['tokenizer_id']}, {done} of {len(tasks)} shards done")


def _report(out: Path, work: Work, result: Result) -> None:
    model = work.fingerprints["tokenizer_id"]
    total = sum(sum(sizes) for sizes in work.source.sizes.values())
    if isinstance(result, ExportManifest):
        check = result.check
        for table, splits in result.tables.items():
            rows = sum(part.rows for parts in splits.values() for part in parts)
            shape = " x ".join(map(str, result.shapes[table]))
            typer.echo(f"{out}: {table} of {total} pictures, {rows} rows of {shape}, tokenizer {model}")
        if check.get("captions_cut"):
            typer.echo(f"{out}: {check['captions_cut']} captions were longer than the text tower and cut")
    else:
        check = result.source["check"]
        shape = " x ".join(map(str, result.source["shape"]))
        typer.echo(f"{out}: {total} pictures as {shape} latents of tokenizer {model}")
    for warning in latent_check.warnings_of(check):
        typer.echo(f"seqtok: {out}: {warning}", err=True)
