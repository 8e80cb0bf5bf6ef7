"""seqtok data: draw or import image-text pairs, learn a vocabulary, see what a folder holds, verify it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from data_pipelines.prepare import PrepareConfig
    from data_pipelines.sources import Source

app = typer.Typer(help="Image-text pairs: draw, import, inspect, verify.", no_args_is_help=True)


class Kind(StrEnum):
    auto, folder, coco, tars = "auto", "folder", "coco", "tars"


class Form(StrEnum):
    png, jpg = "png", "jpg"


class Engine(StrEnum):
    processes, ray = "processes", "ray"


class Resume(StrEnum):
    auto, never = "auto", "never"


class OnBad(StrEnum):
    error, skip = "error", "skip"


Out = Annotated[Path, typer.Argument(help="Folder to write; made if missing.")]
Folder = Annotated[Path, typer.Argument(help="Folder of shards.")]
Processes = Annotated[int, typer.Option(help="Worker processes.", min=1)]
EngineOption = Annotated[Engine, typer.Option(help="Who builds shards: this machine, or a Ray cluster.")]
RayAddress = Annotated[str, typer.Option(help="auto, HOST:PORT, ray://HOST:PORT, or local: start one here.")]
ResumeOption = Annotated[Resume, typer.Option(help="Continue what was begun, or refuse to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
CaptionsField = Annotated[str, typer.Option(help="Record field with the captions, coarse to fine.")]
LabelField = Annotated[list[str], typer.Option(help="Record field that is a label; repeat for several.")]


@app.command()
def scenes(
    out: Out,
    train: Annotated[int, typer.Option(help="Number of training scenes.", min=0)] = 20000,
    val: Annotated[int, typer.Option(help="Number of validation scenes.", min=0)] = 1000,
    test: Annotated[int, typer.Option(help="Number of held-out scenes.", min=0)] = 1000,
    size: Annotated[int, typer.Option(help="Pixels per side.", min=8)] = 32,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    processes: Processes = 2,
    engine: EngineOption = Engine.processes,
    ray_address: RayAddress = "auto",
    resume: ResumeOption = Resume.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Draw scenes of coloured shapes with caption pyramids: no data set is needed."""
    from data_pipelines.prepare import PrepareConfig
    from data_pipelines.sources import ScenesSource

    counts = {"train": train, "val": val, "test": test}
    sources = {s: ScenesSource(s, n, size, seed) for s, n in counts.items() if n}  # type: ignore[arg-type]
    how = {"processes": processes, "engine": engine.value, "ray_address": ray_address}
    config = PrepareConfig.parse({"name": "scenes", "size": size, **how}, "options")
    _prepare({**sources}, out, config, resume, overwrite, dry_run)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Folder with captions.jsonl, COCO JSON, or tars.")],
    out: Out,
    kind: Annotated[Kind, typer.Option(help="What the source is.")] = Kind.auto,
    size: Annotated[int, typer.Option(help="Pixels per side: short side, then centre crop.", min=1)] = 64,
    split: Annotated[str, typer.Option(help="Split that the source becomes; tars name theirs.")] = "train",
    val_share: Annotated[float, typer.Option(help="Share cut off as split val.")] = 0.0,
    test_share: Annotated[float, typer.Option(help="Share cut off as split test.")] = 0.0,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures of a COCO file.")] = None,
    captions_field: CaptionsField = "captions",
    label_field: LabelField = [],  # noqa: B006  typer reads the default, nobody changes it
    name: Annotated[str, typer.Option(help="First part of the shards' names.")] = "data",
    form: Annotated[Form, typer.Option(help="Of pictures that must be encoded again.")] = Form.png,
    samples_per_shard: Annotated[int, typer.Option(min=1)] = 1000,
    max_bad_share: Annotated[float, typer.Option(help="More bad samples than this are an error.")] = 0.02,
    on_bad_shard: Annotated[OnBad, typer.Option(help="Damaged tars of the source.")] = OnBad.error,
    processes: Processes = 1,
    engine: EngineOption = Engine.processes,
    ray_address: RayAddress = "auto",
    resume: ResumeOption = Resume.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Import pictures with captions as shards."""
    from data_pipelines.open_source import SourceConfig, open_source
    from data_pipelines.prepare import PrepareConfig

    values = {
        "kind": kind.value,
        "split": split,
        "val_share": val_share,
        "test_share": test_share,
        "images": images,
        "fields": {"captions": captions_field, "labels": tuple(label_field)},
        "on_bad_shard": on_bad_shard.value,
    }
    sources = open_source(source, SourceConfig.parse(values, "options"))
    settings = {
        "name": name,
        "size": size,
        "form": form.value,
        "samples_per_shard": samples_per_shard,
        "max_bad_share": max_bad_share,
        "processes": processes,
        "engine": engine.value,
        "ray_address": ray_address,
    }
    _prepare(sources, out, PrepareConfig.parse(settings, "options"), resume, overwrite, dry_run)


@app.command()
def text(
    dataset: Folder,
    vocab: Annotated[int, typer.Option(help="Most pieces of the vocabulary.", min=1)] = 4096,
    split: Annotated[str, typer.Option(help="Split whose captions are learned from.")] = "train",
    out: Annotated[Path | None, typer.Option(help="File to write, by default DATASET/captions.model.")] = None,
    captions_field: CaptionsField = "captions",
    overwrite: Overwrite = False,
) -> None:
    """Learn the caption vocabulary of a data set."""
    from data_pipelines.records import Fields
    from data_pipelines.vocabulary import FILE, token_lengths, train_vocabulary

    fields = Fields(captions=captions_field)
    path = out or dataset / FILE
    tokenizer = train_vocabulary(dataset, vocab, split=split, path=path, overwrite=overwrite, fields=fields)
    lengths = token_lengths(dataset, tokenizer, split, fields)
    typer.echo(
        f"{path}: {tokenizer.vocab_size} pieces; tokens per caption: mean {lengths.mean:.1f}, "
        f"99 % at most {lengths.p99}, longest {lengths.longest}"
    )


@app.command()
def inspect(
    dataset: Folder,
    captions_field: CaptionsField = "captions",
    label_field: LabelField = [],  # noqa: B006
) -> None:
    """Say what a folder of shards holds."""
    from data_pipelines.inspect import overview
    from data_pipelines.records import Fields
    from seqtok.commands.data_view import show_overview

    show_overview(overview(dataset, Fields(captions=captions_field, labels=tuple(label_field))))


@app.command()
def verify(
    dataset: Folder,
    decode: Annotated[bool, typer.Option(help="Decode every picture as well.")] = True,
    captions_field: CaptionsField = "captions",
) -> None:
    """Check every shard: size, hash, offsets, keys, records, pictures. Exit status 1 if anything is wrong."""
    from data_pipelines.inspect import verify as verify_folder
    from data_pipelines.records import Fields
    from seqtok.commands.data_view import show_verdict

    verdict = verify_folder(dataset, decode=decode, fields=Fields(captions=captions_field))
    show_verdict(dataset, verdict)
    if verdict.problems:
        raise typer.Exit(1)


def _prepare(
    sources: dict[str, Source],
    out: Path,
    config: PrepareConfig,
    resume: Resume,
    overwrite: bool,
    dry_run: bool,
) -> None:
    from data_pipelines.output import refuse_used
    from data_pipelines.prepare import make_tasks, plan_of
    from data_pipelines.prepare import prepare as run
    from seqtok.commands.data_view import progress_bar, show_manifest

    if dry_run:
        refuse_used(out, plan_of(sources, config), overwrite=overwrite, resume=resume.value)
        tasks = make_tasks(sources, config)
        for split, source in sources.items():
            typer.echo(f"{out}: would write split {split}, {len(source)} samples in {tasks.shards[split]} shards")
        return
    with progress_bar() as on_progress:
        manifest = run(sources, out, config, overwrite=overwrite, resume=resume.value, on_progress=on_progress)
    show_manifest(out, manifest)
