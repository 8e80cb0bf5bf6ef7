"""Every prefix is an image: whole sets encoded, and decoded at growing prefixes.

Shapes: N images, K latents of D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from data_pipelines.samples import to_bytes, to_model


class PrefixTokenizer(Protocol):
    """What every tokenizer can do, of learned or fixed order."""

    @property
    def device(self) -> torch.device: ...

    def encode(self, pixels: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor, num_tokens: int | Tensor | None = None) -> Tensor: ...


class TextTokenizer(Protocol):
    """A tokenizer that was trained with captions."""

    @property
    def device(self) -> torch.device: ...

    def prefix_embeddings(self, latents: Tensor) -> Tensor: ...

    def encode_text(self, text_ids: Tensor) -> Tensor: ...


@torch.no_grad()
def encode_all(tokenizer: PrefixTokenizer, images: Tensor, batch: int = 256) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, K, D) latents on the CPU, `batch` pictures at once on the tokenizer's device."""
    parts = (to_model(part.to(tokenizer.device)) for part in images.split(batch))
    return torch.cat([tokenizer.encode(part).float().cpu() for part in parts])


@torch.no_grad()
def decode_all(tokenizer: PrefixTokenizer, latents: Tensor, num_tokens: int, batch: int = 256) -> Tensor:
    """(B, K, D) latents -> (B, 3, H, W) uint8 on the CPU, each from its first `num_tokens` tokens."""
    parts = (tokenizer.decode(part.to(tokenizer.device), num_tokens=num_tokens) for part in latents.split(batch))
    return torch.cat([to_bytes(part).cpu() for part in parts])


def text_match(tokenizer: TextTokenizer, text_ids: Tensor) -> Callable[[Tensor], Tensor]:
    """text_ids (B, T), prompts -> a score of latents (B, k, D): the cosine between what their tokens say and the
    prompt, in the tokenizer's own space of texts. (B,) float32, 1 at best."""

    @torch.no_grad()
    def score(latents: Tensor) -> Tensor:
        texts = tokenizer.encode_text(text_ids.to(tokenizer.device))
        said = tokenizer.prefix_embeddings(latents.to(tokenizer.device))[:, -1]
        return (said * texts).sum(-1).float()

    return score


def agreement(tokenizer: PrefixTokenizer, kept: Tensor) -> Callable[[Tensor], Tensor]:
    """kept (B, k, D), first tokens of pictures -> a score of latents (B, K, D): how near the first k tokens of the
    picture that they decode to, encoded anew, come to those that were kept. (B,) float32, 0 at best.

    A drawing from a prefix should say what the prefix says; the tokenizer itself is asked, without captions.
    """

    def score(latents: Tensor) -> Tensor:
        pictures = decode_all(tokenizer, latents, latents.shape[1])
        again = encode_all(tokenizer, pictures)[:, : kept.shape[1]]
        return -(again - kept.cpu()).square().mean((1, 2))

    return score
