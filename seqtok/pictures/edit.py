"""A picture edited by words: its first tokens are kept, and the rest is drawn anew for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from ar_model import SampleConfig
from ar_model.text.prompts import as_prompts
from seq_tokenizer.prefixes import agreement, decode_all, encode_all
from seqtok.pictures.sample import load_pair, open_picture, save_pages
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class EditConfig(Config):
    """What is kept of a picture and how the rest is drawn."""

    keep: tuple[Annotated[int, Field(ge=0)], ...] = (1, 4)  # first tokens that stay; a row each
    drawings: int = Field(4, ge=1)  # of each
    candidates: int = Field(1, ge=1)  # for each, of which the one is kept whose own first tokens agree best
    seed: int = Field(0, ge=0)
    sample: SampleConfig = SampleConfig()


def edit_picture(
    model: str | Path,
    tokenizer_model: str | Path,
    file: Path,
    prompts: str | Sequence[str],
    out: Path,
    config: EditConfig,
) -> dict[str, Any]:
    """Write one picture: a row per prompt and number of kept tokens, first what the decoder makes of them alone, then
    drawings, and the file itself. Without prompts the rest is drawn from the tokens alone."""
    prompts = as_prompts(prompts)
    generator, tokenizer = load_pair(model, tokenizer_model)
    length = generator.spec.length
    for keep in config.keep:
        if not 0 <= keep < length:
            raise ConfigError(f"keep={keep}: choose from 0 to {length - 1}, so that something is left to draw")
    image = open_picture(file, tokenizer.config.image_size)
    latents = encode_all(tokenizer, image[None])
    rows, names = [], ["kept", *map(str, range(1, config.drawings + 1)), "original"]
    choices: list[str | None] = [*prompts] or [None]
    for prompt in choices:
        for keep in config.keep:
            kept = latents[:, :keep].expand(config.drawings, -1, -1)
            asked = None if prompt is None else [prompt] * config.drawings
            score = agreement(tokenizer, kept) if keep else None
            candidates = config.candidates if keep else 1
            whole = generator.complete(kept, asked, config.sample, seed=config.seed, candidates=candidates, score=score)
            drawn = decode_all(tokenizer, whole, length)
            alone = decode_all(tokenizer, latents, keep)[0] if keep else torch.zeros_like(image)
            rows.append([alone, *drawn, image])
    files = save_pages(rows.__getitem__, len(rows), names, image.shape[-1], out)
    return {
        "model": str(model),
        "model_id": generator.model_id,
        "tokenizer": str(tokenizer_model),
        "file": str(file),
        "prompts": prompts,
        "asked": config.model_dump(mode="json"),
        "out": str(out),
        "written": [str(file) for file in files],
    }
