"""seqtok data prepare: what people have as image-text pairs -> shards; or, with --dry-run, what would be done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seqtok.commands.data import options
from seqtok.commands.data.options import EngineName, Form, Kind, NoCaption, OnBad, Pyramid, Resize, Resume

if TYPE_CHECKING:
    from data_pipelines.prepare.settings import PrepareConfig
    from data_pipelines.sources.base import Source


def prepare(
    source: options.SourcePath,
    out: options.Out,
    kind: options.KindOption = Kind.auto,
    images: options.Images = None,
    image_field: options.ImageField = "",
    key_field: options.KeyField = "",
    label_field: options.LabelFields = None,
    where: options.Where = None,
    captions_field: options.CaptionsFields = None,
    pyramid: options.PyramidOption = Pyramid.given,
    max_levels: options.MaxLevels = 6,
    max_characters: options.MaxCharacters = 1000,
    min_characters: options.MinCharacters = 1,
    unescape_html: options.UnescapeHtml = False,
    no_caption: options.NoCaptionOption = NoCaption.drop,
    split: options.Split = "train",
    val_share: options.ValShare = 0.0,
    test_share: options.TestShare = 0.0,
    size: options.Size = 64,
    form: options.FormOption = Form.png,
    quality: options.Quality = 95,
    resize: options.ResizeOption = Resize.fast,
    name: options.Name = "data",
    samples_per_shard: options.SamplesPerShard = 1000,
    max_bad_share: options.MaxBadShare = 0.02,
    max_bad_run: options.MaxBadRun = 100,
    on_bad_shard: options.OnBadShard = OnBad.error,
    processes: options.Processes = 1,
    engine: options.EngineOption = EngineName.processes,
    ray_address: options.RayAddress = "auto",
    resume: options.ResumeOption = Resume.auto,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
) -> None:
    """Import pictures with captions as shards. docs/data.md says how each kind of source is read."""
    from data_pipelines.prepare.settings import PrepareConfig
    from data_pipelines.sources.open import SourceConfig, open_source

    fields: dict[str, Any] = {"captions": tuple(captions_field or ("captions",)), "labels": tuple(label_field or ())}
    fields |= {"image": image_field, "key": key_field, "pyramid": pyramid.value, "max_levels": max_levels}
    reading: dict[str, Any] = {"kind": kind.value, "images": images, "fields": fields, "where": tuple(where or ())}
    reading |= {"split": split, "val_share": val_share, "test_share": test_share, "on_bad_shard": on_bad_shard.value}
    cleaning = {"max_characters": max_characters, "min_characters": min_characters, "unescape_html": unescape_html}
    writing: dict[str, Any] = {
        "size": size,
        "form": form.value,
        "quality": quality,
        "resize": resize.value,
        "captions": cleaning,
        "no_caption": no_caption.value,
        "name": name,
    }
    writing |= {"samples_per_shard": samples_per_shard, "max_bad_share": max_bad_share, "processes": processes}
    writing |= {"max_bad_run": max_bad_run, "engine": engine.value, "ray_address": ray_address}
    config = PrepareConfig.parse(writing, "options")
    sources = open_source(source, SourceConfig.parse(reading, "options"))
    run_prepare(sources, out, config, resume, overwrite, dry_run)


def run_prepare(
    sources: dict[str, Source],
    out: Path,
    config: PrepareConfig,
    resume: Resume,
    overwrite: bool,
    dry_run: bool,
) -> None:
    from data_pipelines.prepare.preview import preview
    from data_pipelines.prepare.run import plan_of
    from data_pipelines.prepare.run import prepare as run
    from data_pipelines.shards.output import refuse_used
    from seqtok.commands.data.plan import left_out, show_plan
    from seqtok.commands.data.view import progress_bar, show_manifest

    if dry_run:
        refuse_used(out, plan_of(sources, config), overwrite=overwrite, resume=resume.value)
        show_plan(out, sources, config, preview(sources, config))
        return
    for line in left_out(sources):
        typer.echo(f"{out}: {line}")
    with progress_bar() as on_progress:
        manifest = run(sources, out, config, overwrite=overwrite, resume=resume.value, on_progress=on_progress)
    show_manifest(out, manifest)
