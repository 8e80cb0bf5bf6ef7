"""A tokenizer of another project, judged as ours are: two functions in a Python file.

    IMAGE_SIZE = 32                      # pixels of a side
    def encode(pixels): ...              # (B, 3, H, W) float in [-1, 1] -> (B, K, D), in the order to be judged
    def decode(latents): ...             # (B, K, D) -> (B, 3, H, W), about in [-1, 1]
    def decode(latents, num_tokens): ... # the same where it knows what to do without the tokens from num_tokens on

Without `num_tokens` the missing tokens are their means over the pictures that are judged, which is fair to decoders
that were never told that a token may be missing. The file is run as it is: it is code of yours, or of somebody that
you trust.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.errors import DataError

_WANTED = ("IMAGE_SIZE", "encode", "decode")


def is_foreign(name: str | Path) -> bool:
    """Whether it names a Python file and not a model."""
    return str(name).endswith(".py")


class ForeignTokenizer:
    """What a judge asks of a tokenizer, by two functions. Raises DataError where they give something else."""

    text = None
    device = torch.device("cpu")

    def __init__(self, encode: Callable[..., Any], decode: Callable[..., Any], image_size: int, name: str) -> None:
        self._encode, self._decode, self.image_size, self._name = encode, decode, image_size, name
        self._cuts = "num_tokens" in inspect.signature(decode).parameters
        self._sum, self._count = torch.zeros(()), 0

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, K, D)."""
        found = self._encode(pixels)
        if not isinstance(found, Tensor) or found.ndim != 3 or len(found) != len(pixels):
            raise DataError(f"{self._name}: encode gave {_said(found)}, not ({len(pixels)}, K, D)")
        self._sum, self._count = self._sum + found.float().sum(0), self._count + len(found)
        return found

    def decode(self, latents: Tensor, num_tokens: int | Tensor | None = None) -> Tensor:
        """(B, K, D) -> (B, 3, H, W), from the first num_tokens."""
        if self._cuts:
            found = self._decode(latents, num_tokens=latents.shape[1] if num_tokens is None else num_tokens)
        else:
            kept = latents.clone()
            if num_tokens is not None and self._count:
                kept[:, num_tokens:] = (self._sum / self._count)[num_tokens:].to(kept)
            found = self._decode(kept)
        if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[:2] != (len(latents), 3):
            raise DataError(f"{self._name}: decode gave {_said(found)}, not ({len(latents)}, 3, H, W)")
        return found


def open_foreign(path: str | Path) -> ForeignTokenizer:
    """Run the file and take its functions. Raises DataError naming what is missing, or how it failed."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; a foreign tokenizer is a Python file with {', '.join(_WANTED)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    prepare_torchvision()  # which half of all such libraries import
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path}: could not be run ({type(error).__name__}: {error})") from error
    missing = [name for name in _WANTED if not hasattr(module, name)]
    if missing:
        raise DataError(f"{path}: has no {', '.join(missing)}; see docs/judging.md")
    return ForeignTokenizer(module.encode, module.decode, int(module.IMAGE_SIZE), str(path))


def _said(value: Any) -> str:
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
