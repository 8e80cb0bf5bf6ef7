"""How many characters a tokenizer's code holds: drawn pages through it and back, read by the reader of glyphs.

Shapes: B pages, S pixels per side, K latents of D channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from data_pipelines.glyphs import Typeface, load_typeface, make_page, require_counts, require_page_size
from data_pipelines.samples import to_model
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.capacity.judgement import CapacityConfig, Rebuild, capacity
from seqtok.evaluation.capacity.published_reader import published_reader
from seqtok.evaluation.capacity.reader import GlyphReader
from seqtok.evaluation.capacity.reader_training import (
    draw_pages,
    load_or_train_glyph_reader,
    reader_settings,
    reader_typefaces,
)
from seqtok.evaluation.report import protocol
from seqtok.runs.judge.shown import keep_results, print_table
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.files import read_json
from seqtok_core.layers.randomness import Draws
from seqtok_core.training import World

_MEASURED = 256  # pages whose rate is measured where nothing bounds it, and most that are encoded at once
_SAID_EVERY = 50  # steps of the reader's training


def judge_capacity(model: str, reader_folder: Path, config: CapacityConfig, out: Path | None) -> dict[str, Any]:
    """The section `capacity` of results.json. Raises ConfigError for pages that the tokenizer's size does not fit."""
    config = config.model_copy(update={"glyphs": require_counts(config.glyphs)})
    folder, device = model_folder.find_model_folder(model), World.from_environment().device
    tokenizer = SeqTokenizer.from_pretrained(folder, device=device)
    cell = require_page_size(tokenizer.config.image_size, f"{model} takes")
    typeface = load_typeface(config.alphabet, config.font, cell)
    reader = _reader(reader_folder, config)
    published = published_reader(typeface.alphabet) if config.published else None
    bits, kind = _code_bits(tokenizer, _mixed_pages(config, typeface))
    found = capacity(_ways(tokenizer), reader, typeface, config, published)
    section = {
        "alphabet": len(typeface.alphabet),
        "tokens": tokenizer.config.num_latents,
        "code_bits": bits,
        "code_bits_are": kind,
        "reader": read_json(reader_folder / model_folder.CONFIG)["weights_sha256"],
        "ways": found["ways"],
    }
    if published is not None:
        section |= {"published": found["published"], "published_reader": published.identity}
    results = {"capacity": section, "protocol": protocol.of_capacity(section), "stages": found["stages"]}
    _show(section)
    keep_results(out, results)
    return results


def _reader(folder: Path, config: CapacityConfig) -> GlyphReader:
    """That of `folder`; where it holds none of this alphabet and font one is trained there, which is said."""
    typefaces = reader_typefaces(config.alphabet, config.font)
    settings = reader_settings(typefaces)

    def say(images: int, loss: float) -> None:
        if images == settings.batch or images % (_SAID_EVERY * settings.batch) == 0:
            typer.echo(f"{folder}: training the reader, {images} of {settings.images} pages, loss {loss:.4f}", err=True)

    return load_or_train_glyph_reader(folder, typefaces, settings, say)


def _mixed_pages(config: CapacityConfig, typeface: Typeface) -> Tensor:
    letters = len(typeface.alphabet)
    pages = [make_page(config.seed, index, "val", config.glyphs, letters) for index in range(_MEASURED)]
    return draw_pages(pages, typeface)


@torch.no_grad()
def _code_bits(tokenizer: SeqTokenizer, pictures: Tensor) -> tuple[float | None, str]:
    """What the bottleneck lets through at most; where nothing bounds it, what it was measured to send, if it says."""
    bound = tokenizer.bottleneck.bits(tokenizer.config.num_latents)
    if math.isfinite(bound):
        return bound, "at most"
    bottled = tokenizer.bottle(to_model(pictures.to(tokenizer.device)), _draws(0, len(pictures), tokenizer))
    if "kl_bits" in bottled.shown:
        return float(bottled.shown["kl_bits"]), "mean divergence from the standard normal"
    return None, "nothing bounds it"


def _ways(tokenizer: SeqTokenizer) -> dict[str, Rebuild]:
    """The code as it is handed out; and with noise where the bottleneck has some: its bits bound that alone."""

    def encoded(pictures: Tensor) -> Tensor:
        latents = encode_all(tokenizer, pictures)
        return decode_all(tokenizer, latents, latents.shape[1])

    def noisy(pictures: Tensor) -> Tensor:
        latents = torch.cat([*_noisy_latents(tokenizer, pictures)])
        return decode_all(tokenizer, latents, latents.shape[1])

    blank = torch.full((1, 3, *2 * (tokenizer.config.image_size,)), 255, dtype=torch.uint8)
    silent = torch.equal(torch.cat([*_noisy_latents(tokenizer, blank)]), encode_all(tokenizer, blank))
    return {"encoded": encoded} if silent else {"encoded": encoded, "noisy": noisy}


@torch.no_grad()
def _noisy_latents(tokenizer: SeqTokenizer, pictures: Tensor) -> Iterator[Tensor]:
    """(B, K, D) in parts, each page with noise of its own."""
    for number, part in enumerate(pictures.split(_MEASURED)):
        draws = _draws(number * _MEASURED, len(part), tokenizer)
        yield tokenizer.bottle(to_model(part.to(tokenizer.device)), draws).z.float().cpu()


def _draws(first: int, count: int, tokenizer: SeqTokenizer) -> Draws:
    index = torch.arange(first, first + count, device=tokenizer.device)
    return Draws(0, torch.zeros_like(index), index)


def _show(section: dict[str, Any]) -> None:
    ways, bits = section["ways"], section["code_bits"]
    rows = {}
    for count, row in ways["encoded"].items():
        noisy = {"with noise": ways["noisy"][count]["value"]} if "noisy" in ways else {}
        read = {"read": row["value"], "low": row["low"], "high": row["high"], **noisy}
        beside = {"real": row["ceiling"], "chance": row["chance"]}
        rows[count] = {**read, **beside, "bits drawn": row["bits_drawn"], "bits read": row["bits"]}
    said = section["code_bits_are"] if bits is None else f"{bits:.1f} bits, {section['code_bits_are']}"
    print_table(f"share of the characters of a page that are read; {section['tokens']} tokens: {said}", rows)
    if "published" in section:
        published = section["published"]["encoded"].items()
        rows = {
            count: {"read": row["value"], "low": row["low"], "high": row["high"], "real": row["ceiling"]}
            for count, row in published
        }
        print_table("the same by a reader that somebody else trained", rows)
