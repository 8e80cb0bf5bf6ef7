"""Pictures that a user asks for on the command line: samples of prompts, and what such commands share."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from ar_model.sampling import SearchConfig
from ar_model.text.prompts import as_prompts
from data_pipelines.pictures.decode import DecodeError, decode_pixels
from seq_tokenizer import LatentSpec, SeqTokenizer
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import decode_all
from seqtok.grids import grid, rows_of_a_page, to_image
from seqtok.pictures.verifier import prompt_score
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import atomic_write
from seqtok_core.training import World

_SHOWN_SIZE = 96  # pixels per picture, at least
_DECODED_AT_ONCE = 256
_NAME_BYTES = 100  # of a prompt in the name of its file


def sample_prompts(
    model: str | Path,
    tokenizer_model: str | Path,
    prompts: str | Sequence[str],
    out: Path,
    config: SampleConfig,
    seed: int,
    num_tokens: int | None,
    search: SearchConfig = SearchConfig(),
    verifier: str | None = None,
) -> dict[str, Any]:
    """One row per prompt, decoded from its first 1, 2, 4, ... tokens, on as many pages as it takes; where `out` names a
    folder (it is one, or has no ending) a file per prompt with the picture of all tokens, at its own size. Latents of
    another tokenizer are refused.

    Returns what was asked and used, as JSON takes it.
    """
    prompts = as_prompts(prompts)
    generator, tokenizer = load_pair(model, tokenizer_model)
    latents = generator.sample(
        prompts,
        config,
        seed=seed,
        num_tokens=num_tokens,
        **search.model_dump(),
        score=prompt_score(generator, tokenizer, prompts, search, verifier),
    )
    prefixes = prefix_lengths(latents.shape[1])
    if is_folder(out):
        files = _save_each(tokenizer, latents, prompts, out)
    else:
        rows = lambda part: _decoded(tokenizer, latents[part], prefixes)  # noqa: E731
        files = save_pages(rows, len(prompts), list(map(str, prefixes)), tokenizer.config.image_size, out)
    return {
        "model": str(model),
        "model_id": generator.model_id,
        "tokenizer": str(tokenizer_model),
        "tokenizer_id": generator.spec.tokenizer_id,
        "prompts": prompts,
        "sample": config.model_dump(mode="json"),
        "search": search.model_dump(mode="json"),
        "verifier": verifier,
        "seed": seed,
        "prefix": num_tokens,
        "num_tokens": latents.shape[1],
        "prefixes": list(prefixes),
        "out": str(out),
        "written": [str(file) for file in files],
    }


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not blank. Raises DataError when there are none, or it is not UTF-8 text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{path}: prompts cannot be read ({reason})") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path}: holds no prompt; write one a line")
    return prompts


def load_pair(model: str | Path, tokenizer_model: str | Path) -> tuple[SeqGenerator, SeqTokenizer]:
    """A sequence model and the tokenizer of its latents, on the GPU where there is one. Raises MismatchError naming
    both when they do not belong together."""
    generator, tokenizer = SeqGenerator.from_pretrained(model), SeqTokenizer.from_pretrained(tokenizer_model)
    spec: LatentSpec = generator.spec
    spec.require_same(tokenizer.spec, f"the sequence model {model}", f"the tokenizer {tokenizer_model}")
    device = World.from_environment().device
    return generator.to(device), tokenizer.to(device)


def _decoded(tokenizer: SeqTokenizer, latents: Tensor, prefixes: Sequence[int]) -> list[list[Tensor]]:
    """A row for each of the latents, of its pictures from so many tokens."""
    return [list(row) for row in torch.stack([decode_all(tokenizer, latents, k) for k in prefixes], 1)]


def _save_each(tokenizer: SeqTokenizer, latents: Tensor, prompts: Sequence[str], folder: Path) -> list[Path]:
    files = []
    for first in range(0, len(prompts), _DECODED_AT_ONCE):
        part = latents[first : first + _DECODED_AT_ONCE]
        for number, picture in enumerate(decode_all(tokenizer, part, part.shape[1]), start=first):
            words = re.sub(r"\W+", "_", prompts[number]).strip("_").encode()[:_NAME_BYTES].decode(errors="ignore")
            files.append(save_picture(to_image(picture), folder / f"{number:05d}_{words}.png"))
    return files


def is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def save_pages(
    rows: Callable[[slice], Sequence[Sequence[Tensor]]], count: int, columns: Sequence[str], size: int, out: Path
) -> list[Path]:
    """Write a grid of `count` rows of pictures of `size` pixels: to `out`, or where it would be too tall to be looked
    at to several beside it, `out` with a number each. `rows` gives those of a page."""
    scale = max(1, -(-_SHOWN_SIZE // size))
    each = rows_of_a_page(size * scale)
    pages = [slice(first, min(first + each, count)) for first in range(0, count, each)]
    names = [out] if len(pages) == 1 else [out.with_stem(f"{out.stem}-{n:03d}") for n in range(1, len(pages) + 1)]
    return [save_picture(grid(rows(page), columns, scale), name) for page, name in zip(pages, names, strict=True)]


def open_picture(file: Path, size: int) -> Tensor:
    """-> (3, size, size) uint8, cropped and resized as in training. Raises DataError naming the file."""
    try:
        pixels = decode_pixels(file.read_bytes(), size)
    except (OSError, DecodeError) as error:
        raise DataError(f"{file}: not a picture that can be read ({error})") from None
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def save_picture(image: Image.Image, out: Path) -> Path:
    """As PNG, whole or not at all."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    with atomic_write(out) as file:
        file.write(stream.getvalue())
    return out
