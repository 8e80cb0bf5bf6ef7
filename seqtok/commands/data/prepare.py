"""seqtok data prepare: what people have as image-text pairs -> shards; or, with --dry-run, what would be done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.open import SourceConfig
from seqtok.commands.data.options import DryRun, Out, Overwrite, Resume, ResumeOption
from seqtok.commands.options.flags import Flags, flags

if TYPE_CHECKING:
    from data_pipelines.sources.base import Source

SourcePath = Annotated[
    Path, typer.Argument(help="Folder with captions.jsonl, of pictures or tars; table; JSON of captions; tar.")
]
READING = Flags(
    SourceConfig,
    names={
        "fields.captions": "captions_field",
        "fields.image": "image_field",
        "fields.key": "key_field",
        "fields.labels": "label_field",
        "fields.image_member": "image_member",
        "fields.caption_members": "caption_members",
    },
    panels={
        "Records": ("images", "fields.image", "fields.key", "fields.labels", "where", "quoting", "columns", "group"),
        "Captions": ("fields.captions", "fields.pyramid", "fields.max_levels"),
        "Splits": ("split", "split_field", "val_share", "test_share"),
        "Tars": ("on_bad_shard", "fields.image_member", "fields.caption_members"),
    },
    defaults={"fields.captions": ("captions",)},  # as flags say it; part of a data set's identity
)
WRITING = Flags(
    PrepareConfig,
    panels={
        "Captions": ("captions.max_characters", "captions.min_characters", "captions.unescape_html", "no_caption"),
        "Shards": (
            *("size", "form", "quality", "subsampling", "resize", "max_pixels", "name", "samples_per_shard", "shuffle"),
            *("max_bad_share", "max_bad_run"),
        ),
    },
)


@flags(reading=READING, writing=WRITING)
def prepare(
    source: SourcePath,
    out: Out,
    reading: SourceConfig,
    writing: PrepareConfig,
    resume: ResumeOption = Resume.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Import pictures with captions as shards. docs/data.md says how each kind of source is read."""
    from data_pipelines.shards.output import refuse_source
    from data_pipelines.sources.open import open_source

    refuse_source(out, source)
    run_prepare(open_source(source, reading), out, writing, resume, overwrite, dry_run)


def run_prepare(
    sources: dict[str, Source],
    out: Path,
    config: PrepareConfig,
    resume: Resume,
    overwrite: bool,
    dry_run: bool,
) -> None:
    from data_pipelines.prepare.preview import preview
    from data_pipelines.prepare.run import arrange_sources, plan_of
    from data_pipelines.prepare.run import prepare as run
    from data_pipelines.shards.output import refuse_used
    from seqtok.commands.data.plan import left_out, read_as, show_plan
    from seqtok.commands.data.view import progress_bar, show_manifest

    if dry_run:
        sources = arrange_sources(sources, config, None if overwrite else out)
        refuse_used(out, plan_of(sources, config), overwrite=overwrite, resume=resume.value)
        show_plan(out, sources, config, preview(sources, config))
        return
    for line in (*read_as(sources), *left_out(sources)):
        typer.echo(f"{out}: {line}")
    with progress_bar() as on_progress:
        manifest = run(sources, out, config, overwrite=overwrite, resume=resume.value, on_progress=on_progress)
    show_manifest(out, manifest)
