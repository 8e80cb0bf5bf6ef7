"""A document gone on with: texts and pictures in, the next picture or the next text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ar_model import CaptionConfig, SampleConfig
from ar_model.documents.continuing import draw_next, write_next
from data_pipelines.tars.names import IMAGE_EXTENSIONS
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.pictures.sample import load_pair, open_picture, save_pages
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class DocumentRequest(Config):
    """What comes next."""

    write: bool = False  # a text; else a picture
    drawings: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    sample: SampleConfig = SampleConfig()
    caption: CaptionConfig = CaptionConfig()


def continue_document(
    model: str | Path, tokenizer_model: str | Path, parts: Sequence[str], out: Path, request: DocumentRequest
) -> dict[str, Any]:
    """`parts` in their order: what names a file is a picture, everything else a text. Writes a row of the pictures so
    far, as the tokenizer keeps them, and of the drawings behind them to `out`. Returns what was asked and found."""
    generator, tokenizer = load_pair(model, tokenizer_model)
    files = [Path(part) for part in parts if _is_picture(part)]
    size = tokenizer.config.image_size
    images = torch.stack([open_picture(file, size) for file in files]) if files else None
    latents = iter(encode_all(tokenizer, images)) if images is not None else iter(())
    document: list[str | Tensor] = [next(latents) if _is_picture(part) else part for part in parts]
    found: dict[str, Any] = {
        "model": str(model),
        "model_id": generator.model_id,
        "tokenizer": str(tokenizer_model),
        "parts": [{"image": part} if _is_picture(part) else part for part in parts],
        "asked": request.model_dump(mode="json"),
    }
    if request.write:
        texts = write_next(generator, [document] * request.drawings, request.caption, seed=request.seed)
        return {**found, "texts": texts}
    drawn = draw_next(generator, [document] * request.drawings, request.sample, seed=request.seed)
    known = [part for part in document if isinstance(part, Tensor)]
    row = list(decode_all(tokenizer, torch.stack([*(z.to(drawn) for z in known), *drawn]), generator.spec.length))
    names = [*map(str, range(1, len(known) + 1)), *(f"next {n}" for n in range(1, request.drawings + 1))]
    return {**found, "written": [str(file) for file in save_pages([row].__getitem__, 1, names, size, out)]}


def _is_picture(part: str) -> bool:
    """Raises ConfigError for what can only be the name of a picture that is not there."""
    if not part.strip():
        raise ConfigError("a part is empty; say a text, or the name of a picture")
    path = Path(part)
    try:
        if path.is_file():
            return True
    except OSError:  # a text that is too long for a name
        return False
    if len(part.split()) == 1 and path.suffix.lower().removeprefix(".") in IMAGE_EXTENSIONS:
        raise ConfigError(f"{part}: no such picture; a part is a text or the name of a picture")
    return False
