"""Pictures through a tokenizer, prefix by prefix: what is drawn, how near it is, what it says, what a swap changes.

Shapes: F files, P prefix lengths, K latents of D channels, k <= K.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.metrics.reconstruction import psnr
from seqtok.evaluation.scenes.prefix_truth import by_completion
from seqtok.pictures.sample import load_pair, open_picture, read_prompts, save_pages
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training import World


class ReconstructConfig(Config):
    """What is shown beside the decoded prefixes."""

    generator: str | None = None  # sequence model that draws what is missing
    drawings: int = 3  # by it, of each prefix
    candidates: int = 1  # for each drawing, of which the one is taken whose own first tokens agree best
    captions: Path | None = None  # file of captions, one a line: each prefix names the nearest; None: it writes its own
    swap: bool = False  # the first k tokens of two pictures exchanged
    seed: int = 0
    sample: SampleConfig = SampleConfig(guidance=1.0)


def reconstruct_files(model: str | Path, files: Sequence[Path], out: Path, config: ReconstructConfig) -> dict[str, Any]:
    """Write one picture, a column per prefix length: of every file a row that the decoder makes of its first 1, 2, 4,
    ... K tokens, which where little is known is the mean of what is possible, and the file itself; below it rows of
    what a sequence model draws from the same tokens. Returns the numbers, as JSON takes them."""
    if config.swap and len(files) != 2:
        raise ConfigError(f"swapping takes two pictures, {len(files)} are given")
    generator, tokenizer = _models(model, config)
    images = torch.stack([open_picture(file, tokenizer.config.image_size) for file in files])
    latents = encode_all(tokenizer, images)
    prefixes = prefix_lengths(latents.shape[1])
    decoded = [decode_all(tokenizer, latents, k) for k in prefixes]
    drawn = [_drawn(tokenizer, generator, latents[:, :k], config) for k in prefixes] if generator else []
    rows = []
    for row, image in enumerate(images):
        rows.append([*(pictures[row] for pictures in decoded), image])
        rows += [[pictures[number][row] for pictures in drawn] for number in range(config.drawings if drawn else 0)]
    if config.swap:
        rows += _swapped(tokenizer, latents, prefixes)
    pages = save_pages(rows.__getitem__, len(rows), [*map(str, prefixes), "original"], images.shape[-1], out)
    return {
        "model": str(model),
        "files": [str(file) for file in files],
        "prefixes": list(prefixes),
        "psnr": {str(k): psnr(pictures, images).tolist() for k, pictures in zip(prefixes, decoded, strict=True)},
        "says": _says(tokenizer, model, latents, prefixes, config.captions),
        "generator": config.generator,
        "seed": config.seed if generator else None,
        "out": str(out),
        "written": [str(page) for page in pages],
    }


def say_numbers(numbers: dict[str, Any], as_json: bool) -> None:
    """On the terminal: a line per picture, or all of it as JSON."""
    if as_json:
        typer.echo(json.dumps(numbers, indent=1, ensure_ascii=False))
        return
    for row, file in enumerate(numbers["files"]):
        typer.echo(f"{file}: " + ", ".join(f"{k}: {values[row]:.1f}" for k, values in numbers["psnr"].items()) + " dB")
        for k, captions in (numbers["says"] or {}).items():
            typer.echo(f"  {k}: {captions[row]}")
    for page in numbers["written"]:
        typer.echo(page)


def _models(model: str | Path, config: ReconstructConfig) -> tuple[SeqGenerator | None, SeqTokenizer]:
    if config.generator is not None:
        return load_pair(config.generator, model)
    return None, SeqTokenizer.from_pretrained(model).to(World.from_environment().device)


def _drawn(tokenizer: SeqTokenizer, generator: SeqGenerator, kept: Tensor, config: ReconstructConfig) -> list[Tensor]:
    """kept (F, k, D) -> as many times as asked, (F, 3, H, W) uint8."""
    draw = by_completion(tokenizer, generator, config.sample, config.candidates)
    return [draw(kept, config.seed + number) for number in range(config.drawings)]


def _swapped(tokenizer: SeqTokenizer, latents: Tensor, prefixes: Sequence[int]) -> list[list[Tensor]]:
    """latents (2, K, D) -> two rows: each picture with the first k tokens of the other."""
    length = latents.shape[1]
    pictures = [decode_all(tokenizer, exchanged(latents, k), length) for k in prefixes]
    return [[picture[row] for picture in pictures] for row in range(2)]


def exchanged(latents: Tensor, k: int) -> Tensor:
    """latents (2, K, D) -> the same with the first k tokens of the two exchanged."""
    return torch.cat([latents.flip(0)[:, :k], latents[:, k:]], 1)


@torch.no_grad()
def _says(
    tokenizer: SeqTokenizer, model: str | Path, latents: Tensor, prefixes: Sequence[int], file: Path | None
) -> dict[str, list[str]] | None:
    """k -> for every file what its first k tokens say: the nearest caption, or what the writer is sure of."""
    writes = tokenizer.writer is not None and tokenizer.writer.config.level_starts is not None
    if file is None and not writes:
        return None
    words = CaptionTokenizer.load(model_folder.captions_of(model_folder.find_model_folder(model)))
    if file is None:
        return {str(k): [words.decode(ids) for ids in tokenizer.write(latents[:, :k])] for k in prefixes}
    captions = read_prompts(file)
    embeddings = tokenizer.prefix_embeddings(latents.to(tokenizer.device))  # (F, K, E)
    limit = tokenizer.config.text.context - 1 if tokenizer.config.text else 0
    ids = [torch.tensor([words.encode(caption)[:limit]], device=tokenizer.device) for caption in captions]
    texts = torch.cat([tokenizer.encode_text(row) for row in ids])  # (C, E)
    nearest = (embeddings @ texts.T).argmax(-1)  # (F, K)
    return {str(k): [captions[i] for i in nearest[:, k - 1].tolist()] for k in prefixes}
