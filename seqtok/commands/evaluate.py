"""seqtok evaluate: numbers about a model on held-out data, as a table and as results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options.common import (
    Alphabet,
    Beams,
    Beginnings,
    Candidates,
    CaptionCandidates,
    Drawings,
    Font,
    Guidance,
    Overrides,
    SceneSeed,
    Steps,
    Temperature,
    Weak,
    folder_to_write,
    sample_settings,
    take_free_cores,
)

app = typer.Typer(help="Judge models on held-out data.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="Model folder of a tokenizer, or a hub id.")]
Data = Annotated[Path, typer.Argument(help="Folder of image shards.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write results.json to.", callback=folder_to_write)]
Split = Annotated[str, typer.Option(help="Held-out split.")]
Limit = Annotated[int, typer.Option(help="Most pictures of a split.", min=2)]


@app.command()
def reconstruction(model: Model, data: Data, split: Split = "test", limit: Limit = 2000, out: Out = None) -> None:
    """PSNR and SSIM against prefix length."""
    from seqtok.runs.judge.models import judge_reconstruction

    take_free_cores()
    judge_reconstruction(model, data, split, limit, out)


@app.command()
def semantics(
    model: Model,
    data: Data,
    split: Split = "test",
    fit_split: Annotated[str, typer.Option(help="Split that linear probes are fitted on.")] = "train",
    limit: Limit = 2000,
    fit_limit: Annotated[int, typer.Option(help="Most pictures to fit probes on.", min=2)] = 8000,
    out: Out = None,
) -> None:
    """Linear probes per label and zero-shot retrieval per caption level, against prefix length."""
    from seqtok.runs.judge.models import probe_and_retrieve

    take_free_cores()
    probe_and_retrieve(model, data, split, fit_split, limit, fit_limit, out)


@app.command()
def generation(
    generator: Annotated[str, typer.Argument(help="Model folder of a sequence model.")],
    tokenizer: Model,
    reader: Annotated[Path, typer.Option(help="Folder of the scene reader; trained there if missing.")],
    prompts: Annotated[int, typer.Option(help="Held-out scenes whose captions are the prompts.", min=2)] = 200,
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    weak: Weak = None,
    candidates: Drawings = 1,
    beams: Beginnings = 1,
    level: Annotated[int, typer.Option(help="Caption level of the prompts, 0 coarse to 3 fine.", min=0, max=3)] = 3,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    scene_seed: SceneSeed = 0,
    out: Out = None,
) -> None:
    """Drawn scenes: whether pictures of held-out prompts show what was asked for."""
    from seqtok.evaluation.runners.generation import GenerationConfig
    from seqtok.runs.judge.models import judge_generation

    sample = sample_settings(guidance, temperature, steps, weak)
    search = {"candidates": candidates, "beams": beams}
    values = {"sample": sample, "search": search, "seed": seed, "level": level}
    config = GenerationConfig.parse(values, "options")
    take_free_cores()
    judge_generation(generator, tokenizer, reader, prompts, config, scene_seed, out)


@app.command()
def captions(
    generator: Annotated[str, typer.Argument(help="Model folder of a sequence model.")],
    tokenizer: Model,
    scenes: Annotated[int, typer.Option(help="Held-out scenes whose pictures are described.", min=2)] = 200,
    beams: Beams = None,
    guidance: Annotated[float | None, typer.Option(help="Of captions by the picture; 1 is none.", min=0)] = None,
    candidates: CaptionCandidates = None,
    scene_seed: SceneSeed = 0,
    out: Out = None,
) -> None:
    """Drawn scenes: whether captions of held-out pictures are true, and of what the first tokens alone say."""
    from seqtok.evaluation.runners.captions import CaptionEvaluation
    from seqtok.runs.judge.models import judge_captions

    given = {"beams": beams, "guidance": guidance, "candidates": candidates}
    config = CaptionEvaluation.parse({"caption": {k: v for k, v in given.items() if v is not None}}, "options")
    take_free_cores()
    judge_captions(generator, tokenizer, scenes, config, scene_seed, out)


@app.command()
def ordering(
    suite: Annotated[str, typer.Argument(help="A suite: a YAML file or a shipped one's name.")],
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many hours it takes; train nothing.")] = False,
) -> None:
    """Orders held against each other: trains every contestant, judges all alike, writes one table. Killed, it
    continues."""
    from seqtok.runs.judge.orders.ordering import open_suite, run_suite

    settings = open_suite(suite, overrides or [])
    if not dry_run:
        typer.echo(str(run_suite(settings)))
        return
    from seqtok.plan.suite import plan_suite

    plan = plan_suite(settings)
    rates = "; ".join(f"{name} {rate:.0f} images/s" for name, rate in plan["images_per_s"].items())
    typer.echo(
        f"{plan['left']} of {plan['contests']} contests are to be done ({rates}): {plan['hours']:.1f} hours of "
        f"training one after the other, each on all cores, which jobs={settings.jobs} share; judgements come on top"
    )


@app.command()
def understanding(
    generator: Annotated[str, typer.Argument(help="Model folder of a sequence model.")],
    tokenizer: Model,
    data: Annotated[Path, typer.Argument(help="Folder of image shards, or of latents exported from them.")],
    split: Split = "test",
    fit_split: Annotated[str, typer.Option(help="Split that linear probes are fitted on.")] = "train",
    val_split: Annotated[
        str | None,
        typer.Option(help="Split that blocks are chosen on; else val, or a fifth of the pictures to fit on."),
    ] = None,
    limit: Limit = 1000,
    fit_limit: Annotated[int, typer.Option(help="Most pictures to fit probes on.", min=10)] = 5000,
    candidates: Annotated[
        int, typer.Option(help="Most captions of a level that the likeliest is chosen among.", min=2)
    ] = 64,
    scenes: Annotated[int, typer.Option(help="Drawn scenes whose captions are judged.", min=2)] = 200,
    scene_seed: SceneSeed = 0,
    out: Out = None,
) -> None:
    """What a sequence model knows of pictures: probes of its states, captions, and the likeliest of given ones."""
    from seqtok.runs.judge.understanding import UnderstandingRequest, judge_understanding

    pictures = {"split": split, "fit_split": fit_split, "val_split": val_split, "limit": limit, "fit_limit": fit_limit}
    asked = {"scenes": scenes, "scene_seed": scene_seed, "judged": {"candidates": candidates}}
    request = UnderstandingRequest.parse({**pictures, **asked}, "options")
    take_free_cores()
    judge_understanding(generator, tokenizer, data, request, out)


@app.command()
def resampling(
    generator: Annotated[str, typer.Argument(help="Model folder of a sequence model.")],
    tokenizer: Model,
    reader: Annotated[Path, typer.Option(help="Folder of the scene reader; trained there if missing.")],
    scenes: Annotated[int, typer.Option(help="Held-out scenes whose first tokens are kept.", min=2)] = 200,
    drawings: Annotated[int, typer.Option(help="Redrawings of each picture for every number kept.", min=2)] = 4,
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    scene_seed: SceneSeed = 0,
    out: Out = None,
) -> None:
    """Drawn scenes: what the first tokens fix, by what stays of a picture whose other tokens are drawn anew."""
    from seqtok.evaluation.runners.resampling import ResamplingConfig
    from seqtok.runs.judge.resampling import judge_resampling

    sample = {"guidance": 1.0, **sample_settings(guidance, temperature, steps)}
    config = ResamplingConfig.parse({"sample": sample, "seeds": drawings}, "options")
    take_free_cores()
    judge_resampling(generator, tokenizer, reader, scenes, config, scene_seed, out)


@app.command("prefix-truth")
def prefix_truth(
    generator: Annotated[str, typer.Argument(help="Model folder of a sequence model.")],
    tokenizer: Model,
    reader: Annotated[Path, typer.Option(help="Folder of the scene reader; trained there if missing.")],
    scenes: Annotated[int, typer.Option(help="Held-out scenes whose prefixes are drawn from.", min=2)] = 200,
    drawings: Annotated[int, typer.Option(help="Pictures drawn from each prefix.", min=1)] = 4,
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    candidates: Candidates = 1,
    scene_seed: SceneSeed = 0,
    out: Out = None,
) -> None:
    """Drawn scenes: whether pictures drawn from the first tokens show what the captions of the scene say."""
    from seqtok.evaluation.scenes.prefix_truth import PrefixTruthConfig
    from seqtok.runs.judge.models import judge_prefixes

    sample = {"guidance": 1.0, **sample_settings(guidance, temperature, steps)}
    config = PrefixTruthConfig.parse({"sample": sample, "seeds": drawings, "candidates": candidates}, "options")
    take_free_cores()
    judge_prefixes(generator, tokenizer, reader, scenes, config, scene_seed, out)


@app.command("set")
def picture_set(
    generator: Annotated[str, typer.Argument(help="Model folder of a sequence model.")],
    tokenizer: Model,
    prompts: Annotated[Path, typer.Option(help="Text file, a prompt a line: one for each class.")],
    network: Annotated[str, typer.Option(help="Whose features: inception:FILE, timm:NAME:FILE, open_clip:NAME, …")],
    reference: Annotated[
        Path, typer.Option(help=".npz with mu and sigma or pictures, as ADM gives out, or a folder of image shards.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for samples.npz and results.json.", callback=folder_to_write)],
    count: Annotated[int, typer.Option(help="Pictures.", min=2)] = 50_000,
    labels: Annotated[str, typer.Option(help="even: each prompt as often; random: drawn evenly.")] = "even",
    split: Annotated[str, typer.Option(help="Of a folder of shards, of which as many pictures are taken.")] = "train",
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    weak: Weak = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
) -> None:
    """A large set of drawn pictures by ImageNet's conventions: Frechet distance, precision and recall, inception score,
    and the file that ADM's evaluator reads. Killed, it continues."""
    from seqtok.pictures.sample_set import SampleSetConfig
    from seqtok.runs.judge.sets import judge_set

    sample = sample_settings(guidance, temperature, steps, weak)
    values = {"count": count, "labels": labels, "seed": seed, "sample": sample}
    config = SampleSetConfig.parse(values, "options")
    take_free_cores()
    judge_set(generator, tokenizer, prompts, network, reference, split, config, out)


@app.command()
def capacity(
    model: Model,
    reader: Annotated[Path, typer.Option(help="Folder of the reader of glyphs; trained there if missing.")],
    glyphs: Annotated[list[int] | None, typer.Option(help="Characters of a page; repeat. 1, 2, 4, … 64.")] = None,
    pictures: Annotated[int, typer.Option(help="Pages of each number of characters.", min=2)] = 500,
    alphabet: Alphabet = None,
    font: Font = None,
    seed: Annotated[int, typer.Option(help="Of the pages.", min=0)] = 0,
    published: Annotated[
        int, typer.Option(help="Pages of each number that rapidocr's reader reads, too: some seconds each.", min=0)
    ] = 0,
    out: Out = None,
) -> None:
    """Pages of random glyphs: how many characters come through the code, beside the bits that it can carry."""
    from seqtok.evaluation.capacity.judgement import CapacityConfig
    from seqtok.runs.judge.capacity import judge_capacity

    given = {"glyphs": tuple(glyphs) if glyphs else None, "alphabet": alphabet, "font": font}
    asked = {"pictures": pictures, "seed": seed, "published": published}
    values = {**asked, **{key: value for key, value in given.items() if value is not None}}
    config = CapacityConfig.parse(values, "options")
    take_free_cores()
    judge_capacity(model, reader, config, out)
