"""seqtok data prepare: what people have as image-text pairs -> shards; or, with --dry-run, what would be done."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from data_pipelines.prepare import PrepareConfig
    from data_pipelines.sources import Source


class Kind(StrEnum):
    auto = "auto"
    folder, pictures, sidecar, classes = "folder", "pictures", "sidecar", "classes"
    csv, jsonl, parquet = "csv", "jsonl", "parquet"
    coco, tars = "coco", "tars"


class Form(StrEnum):
    png, jpg = "png", "jpg"


class Resume(StrEnum):
    auto, never = "auto", "never"


class OnBad(StrEnum):
    error, skip = "error", "skip"


class Pyramid(StrEnum):
    given, sentences = "given", "sentences"


class NoCaption(StrEnum):
    drop, keep = "drop", "keep"


_RECORDS, _CAPTIONS, _SPLITS, _SHARDS = "Records", "Captions", "Splits", "Shards"
Out = Annotated[Path, typer.Argument(help="Folder to write; made if missing.")]
Processes = Annotated[int, typer.Option(help="Worker processes.", min=1)]
ResumeOption = Annotated[Resume, typer.Option(help="Continue what was begun, or refuse to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and ten decoded samples; write nothing.")]


def prepare(
    source: Annotated[
        Path, typer.Argument(help="Folder with captions.jsonl, of pictures, of tars; table; COCO JSON; tar.")
    ],
    out: Out,
    kind: Annotated[Kind, typer.Option(help="What the source is.")] = Kind.auto,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the paths of pictures lie in, by default the table's.", rich_help_panel=_RECORDS
        ),
    ] = None,
    image_field: Annotated[
        str, typer.Option(help="Field with the path or the bytes, or e.g. 'images/{id}.jpg'.", rich_help_panel=_RECORDS)
    ] = "",
    key_field: Annotated[
        str, typer.Option(help="Field that names a sample, by default its path.", rich_help_panel=_RECORDS)
    ] = "",
    label_field: Annotated[
        list[str] | None, typer.Option(help="Field that is a label; repeat for several.", rich_help_panel=_RECORDS)
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only samples with e.g. label=dog,cat or width>=256; repeat: all.", rich_help_panel=_RECORDS),
    ] = None,
    captions_field: Annotated[
        list[str] | None,
        typer.Option(
            help="Field with captions, coarse to fine, or e.g. 'a photo of a {label}'; repeat: level by level.",
            rich_help_panel=_CAPTIONS,
        ),
    ] = None,
    pyramid: Annotated[
        Pyramid, typer.Option(help="sentences: the last text becomes a level per sentence.", rich_help_panel=_CAPTIONS)
    ] = Pyramid.given,
    max_levels: Annotated[int, typer.Option(help="Most levels of sentences.", min=1, rich_help_panel=_CAPTIONS)] = 6,
    max_characters: Annotated[
        int, typer.Option(help="Longer captions are cut.", min=1, max=1000, rich_help_panel=_CAPTIONS)
    ] = 1000,
    min_characters: Annotated[
        int, typer.Option(help="Shorter captions are left out.", min=1, rich_help_panel=_CAPTIONS)
    ] = 1,
    unescape_html: Annotated[
        bool, typer.Option("--unescape-html", help="Read &amp; as &.", rich_help_panel=_CAPTIONS)
    ] = False,
    no_caption: Annotated[
        NoCaption, typer.Option(help="Pictures without any caption.", rich_help_panel=_CAPTIONS)
    ] = NoCaption.drop,
    split: Annotated[
        str, typer.Option(help="Split of what no file name gives one.", rich_help_panel=_SPLITS)
    ] = "train",
    val_share: Annotated[float, typer.Option(help="Share cut off as split val.", rich_help_panel=_SPLITS)] = 0.0,
    test_share: Annotated[float, typer.Option(help="Share cut off as split test.", rich_help_panel=_SPLITS)] = 0.0,
    size: Annotated[
        int, typer.Option(help="Pixels per side: short side, then centre crop.", min=1, rich_help_panel=_SHARDS)
    ] = 64,
    form: Annotated[
        Form, typer.Option(help="Of pictures that must be encoded again.", rich_help_panel=_SHARDS)
    ] = Form.png,
    name: Annotated[str, typer.Option(help="First part of the shards' names.", rich_help_panel=_SHARDS)] = "data",
    samples_per_shard: Annotated[int, typer.Option(min=1, rich_help_panel=_SHARDS)] = 1000,
    max_bad_share: Annotated[
        float, typer.Option(help="More bad samples than this are an error.", rich_help_panel=_SHARDS)
    ] = 0.02,
    on_bad_shard: Annotated[
        OnBad, typer.Option(help="Damaged tars of the source.", rich_help_panel=_SHARDS)
    ] = OnBad.error,
    processes: Processes = 1,
    resume: ResumeOption = Resume.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Import pictures with captions as shards. docs/data.md says how each kind of source is read."""
    from data_pipelines.open_source import SourceConfig, open_source
    from data_pipelines.prepare import PrepareConfig

    fields = {
        "captions": tuple(captions_field or ("captions",)),
        "labels": tuple(label_field or ()),
        "image": image_field,
        "key": key_field,
        "pyramid": pyramid.value,
        "max_levels": max_levels,
    }
    values = {
        "kind": kind.value,
        "split": split,
        "val_share": val_share,
        "test_share": test_share,
        "images": images,
        "fields": fields,
        "where": tuple(where or ()),
        "on_bad_shard": on_bad_shard.value,
    }
    settings = {
        "name": name,
        "size": size,
        "form": form.value,
        "samples_per_shard": samples_per_shard,
        "max_bad_share": max_bad_share,
        "captions": {
            "max_characters": max_characters,
            "min_characters": min_characters,
            "unescape_html": unescape_html,
        },
        "no_caption": no_caption.value,
        "processes": processes,
    }
    config = PrepareConfig.parse(settings, "options")
    sources = open_source(source, SourceConfig.parse(values, "options"))
    run_prepare(sources, out, config, resume, overwrite, dry_run)


def run_prepare(
    sources: dict[str, Source],
    out: Path,
    config: PrepareConfig,
    resume: Resume,
    overwrite: bool,
    dry_run: bool,
) -> None:
    from data_pipelines.output import refuse_used
    from data_pipelines.prepare import plan_of
    from data_pipelines.prepare import prepare as run
    from data_pipelines.preview import preview
    from seqtok.commands.data_plan import show_plan
    from seqtok.commands.data_view import progress_bar, show_manifest

    if dry_run:
        refuse_used(out, plan_of(sources, config), overwrite=overwrite, resume=resume.value)
        show_plan(out, sources, config, preview(sources, config))
        return
    with progress_bar() as on_progress:
        manifest = run(sources, out, config, overwrite=overwrite, resume=resume.value, on_progress=on_progress)
    show_manifest(out, manifest)
