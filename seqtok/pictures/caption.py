"""Pictures in, words out: captions by a sequence model, or which of given captions fits best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from ar_model import CaptionConfig
from seq_tokenizer.prefixes import encode_all
from seqtok.pictures.sample import load_pair, open_picture, read_prompts
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class CaptionRequest(Config):
    """What is asked about the pictures."""

    level: str | None = None  # of the captions, "0" or "coarse" to the last or "fine"; None: the finest
    prefix: int | None = None  # tokens that are read; None: all
    among: Path | None = None  # file of captions, one a line: the likeliest of them is named instead
    seed: int = 0  # of words that are drawn
    caption: CaptionConfig = CaptionConfig()


def caption_files(
    model: str | Path, tokenizer_model: str | Path, files: Sequence[Path], request: CaptionRequest
) -> dict[str, Any]:
    """One caption a file. Returns what was asked and found, as JSON takes it."""
    generator, tokenizer = load_pair(model, tokenizer_model)
    length = generator.spec.length
    if request.prefix is not None and not 1 <= request.prefix <= length:
        raise ConfigError(f"prefix={request.prefix}: choose from 1 to {length}")
    images = torch.stack([open_picture(file, tokenizer.config.image_size) for file in files])
    latents = encode_all(tokenizer, images)[:, : request.prefix]
    found: dict[str, Any] = {
        "model": str(model),
        "model_id": generator.model_id,
        "tokenizer": str(tokenizer_model),
        "files": [str(file) for file in files],
        "asked": request.model_dump(mode="json"),
    }
    level: Any = int(request.level) if request.level and request.level.isdecimal() else request.level
    if request.among is None:
        captions = generator.caption(latents, request.caption, level=level, seed=request.seed)
        return {**found, "captions": captions}
    choices = read_prompts(request.among)
    scores = generator.score_captions(latents, choices, level=level)
    best = [choices[i] for i in scores.argmax(1).tolist()]
    return {**found, "captions": best, "log_p": [dict(zip(choices, row, strict=True)) for row in scores.tolist()]}


def say_captions(found: dict[str, Any]) -> None:
    """A line per picture."""
    for file, caption in zip(found["files"], found["captions"], strict=True):
        typer.echo(f"{file}: {caption}")
