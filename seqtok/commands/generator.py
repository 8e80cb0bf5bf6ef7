"""seqtok generator: train a sequence model, draw pictures from prompts, edit them, say what pictures show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from seqtok.commands.options.common import (
    Beams,
    Beginnings,
    Candidates,
    CaptionCandidates,
    Drawings,
    DryRun,
    Guidance,
    Overrides,
    Overwrite,
    Picture,
    Resume,
    Steps,
    Temperature,
    Verifier,
    Weak,
    place_to_write,
    sample_settings,
    take_free_cores,
)
from seqtok.commands.train import giving_way

app = typer.Typer(help="Sequence model: train, sample, edit, caption.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="Model folder of a sequence model, or a hub id.")]
Tokenizer = Annotated[str, typer.Argument(help="Model folder of the tokenizer of its latents.")]
Json = Annotated[bool, typer.Option("--json", help="Print what was asked and used, as JSON.")]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")],
    overrides: Overrides = None,
    resume: Resume = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a sequence model on latent shards; under torchrun the same command uses every process."""
    with giving_way(config, overrides or [], dry_run):
        from seqtok.runs.generators.pairs import GeneratorRun
        from seqtok.runs.kinds import load_kind
        from seqtok.runs.train import train_run

        train_run(load_kind(GeneratorRun, config, overrides or []), resume, overwrite, dry_run)


@app.command()
def sample(
    model: Model,
    tokenizer: Tokenizer,
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; repeat for several.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file, one prompt a line; blank lines are skipped.")] = None,
    out: Annotated[
        Path, typer.Option(help="PNG to write, or a folder: a file per picture.", callback=place_to_write)
    ] = Path("samples.png"),
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    weak: Weak = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    candidates: Drawings = 1,
    beams: Beginnings = 1,
    verifier: Verifier = None,
    prefix: Annotated[int | None, typer.Option(help="Stop after this many tokens; all by default.")] = None,
    as_json: Json = False,
) -> None:
    """One row per prompt: the picture after 1, 2, 4, … tokens."""
    from ar_model import SampleConfig
    from ar_model.sampling import SearchConfig
    from seqtok.pictures.sample import read_prompts, sample_prompts
    from seqtok_core.foundation.errors import ConfigError

    wanted = [*(prompt or []), *(read_prompts(prompts) if prompts is not None else [])]
    if not wanted:
        raise ConfigError("nothing to draw: say --prompt TEXT (repeatable) or --prompts FILE")
    config = SampleConfig.parse(sample_settings(guidance, temperature, steps, weak), "options")
    take_free_cores()
    search = SearchConfig(candidates=candidates, beams=beams)
    used = sample_prompts(model, tokenizer, wanted, out, config, seed, prefix, search, verifier)
    typer.echo(json.dumps(used, indent=1, ensure_ascii=False) if as_json else "\n".join(used["written"]))


@app.command()
def edit(
    model: Model,
    tokenizer: Tokenizer,
    image: Annotated[Path, typer.Argument(help="Picture in any common format.")],
    prompt: Annotated[list[str] | None, typer.Option(help="What the rest shall show; repeat for several.")] = None,
    keep: Annotated[list[int] | None, typer.Option(help="First tokens that stay; repeat. 1 and 4.", min=0)] = None,
    drawings: Annotated[int | None, typer.Option(help="Drawings of each.", min=1)] = None,
    out: Picture = Path("edited.png"),
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    candidates: Candidates = 1,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Keep a picture's first tokens and draw the rest anew: a row per prompt and number of kept tokens."""
    from seqtok.pictures.edit import EditConfig, edit_picture

    given = {"keep": tuple(keep) if keep else None, "drawings": drawings, "candidates": candidates, "seed": seed}
    values = {key: value for key, value in given.items() if value is not None}
    config = EditConfig.parse({**values, "sample": sample_settings(guidance, temperature, steps)}, "options")
    take_free_cores()
    used = edit_picture(model, tokenizer, image, prompt or [], out, config)
    typer.echo(json.dumps(used, indent=1, ensure_ascii=False) if as_json else "\n".join(used["written"]))


@app.command("continue")
def go_on(
    model: Model,
    tokenizer: Tokenizer,
    parts: Annotated[list[str], typer.Argument(help="Texts and names of picture files, in their order.")],
    out: Picture = Path("next.png"),
    write: Annotated[bool, typer.Option("--write", help="Write the text that comes next, and draw nothing.")] = False,
    drawings: Annotated[int, typer.Option(help="Of the next picture, or texts.", min=1)] = 1,
    guidance: Guidance = None,
    temperature: Temperature = None,
    steps: Steps = None,
    beams: Beams = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """What comes next in a document of texts and pictures: by a model that was trained on such (kind: documents)."""
    from seqtok.pictures.document import DocumentRequest, continue_document
    from seqtok_core.foundation.errors import ConfigError

    if write and (guidance is not None or steps is not None):
        raise ConfigError("--guidance and --steps are for drawing; leave them out where --write is said")
    if beams is not None and not write:
        raise ConfigError("--beams is for texts; say --write, or leave it out")
    words = {"beams": beams, "temperature": temperature if write else None}
    given: dict[str, Any] = {"write": write, "drawings": drawings, "seed": seed}
    given["caption"] = {key: value for key, value in words.items() if value is not None}
    given["sample"] = {} if write else sample_settings(guidance, temperature, steps)
    request = DocumentRequest.parse(given, "options")
    take_free_cores()
    found = continue_document(model, tokenizer, parts, out, request)
    said = found["texts" if write else "written"]
    typer.echo(json.dumps(found, indent=1, ensure_ascii=False) if as_json else "\n".join(said))


@app.command()
def caption(
    model: Model,
    tokenizer: Tokenizer,
    images: Annotated[list[Path], typer.Argument(help="Pictures in any common format.")],
    level: Annotated[str | None, typer.Option(help="Of the captions: 0 or coarse, ... the last or fine.")] = None,
    prefix: Annotated[int | None, typer.Option(help="Tokens that are read; all by default.", min=1)] = None,
    among: Annotated[
        Path | None, typer.Option(help="Text file, one caption a line: the likeliest of them is named.")
    ] = None,
    beams: Beams = None,
    temperature: Annotated[float | None, typer.Option(help="Above 0 words are drawn.", min=0)] = None,
    top_p: Annotated[float | None, typer.Option(help="From the likeliest that have this share.", max=1)] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Above 1 the picture counts for more than what captions usually say.", min=0)
    ] = None,
    candidates: CaptionCandidates = None,
    seed: Annotated[int, typer.Option(help="Of words that are drawn.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """What pictures show, in words: by a model that was trained both ways (objective.text_to_image below 1)."""
    from seqtok.pictures.caption import CaptionRequest, caption_files, say_captions

    words = {
        "beams": beams,
        "temperature": temperature,
        "top_p": top_p,
        "guidance": guidance,
        "candidates": candidates,
    }
    chosen = {key: value for key, value in words.items() if value is not None}
    given = {"level": level, "prefix": prefix, "among": among, "seed": seed, "caption": chosen}
    request = CaptionRequest.parse({k: v for k, v in given.items() if v is not None}, "options")
    take_free_cores()
    found = caption_files(model, tokenizer, images, request)
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        say_captions(found)
