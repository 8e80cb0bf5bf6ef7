"""What a bottleneck is: the narrow place that every token passes. Noise, rounding, and losses that keep latents in
shape belong to it, and so does the number of bits that can pass.

Shapes: B images, K tokens, W width, D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn

from seqtok_core.layers.randomness import Draws


class Bottled(NamedTuple):
    """What came through."""

    z: Tensor  # (B, K, D) float32
    codes: Tensor | None  # int64 where latents are entries of a codebook, (B, K), or sums of Q > 1 of them, (B, K, Q)
    bits: float  # upper bound of what the K latents of one image carry
    losses: dict[str, Tensor]  # by name, weighted already: they are added to the objective
    shown: Mapping[str, Tensor] = MappingProxyType({})  # scalars to log beside them
    # (B, K, D) float32, z as it is handed out, where training adds noise of its own; None: z itself
    clean: Tensor | None = None


class Bottleneck(nn.Module, ABC):
    """Made from its config and the sizes that all parts share.

    Usually latent i is made of token i. Where `groups` are set, the latents are made together, of a grid of features
    (`features_of` in build.py), and come in groups of these sizes, of which each knows only earlier groups.
    """

    groups: tuple[int, ...] = ()
    codebook_size: int | None = None  # V, where latents are entries of a codebook
    codes_per_token: int = 1  # Q

    @abstractmethod
    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        """h (B, K, W). With `draws` as in training, without them free of noise: what `encode` hands out."""

    @abstractmethod
    def bits(self, length: int) -> float:
        """Upper bound of what `length` latents carry; infinite where nothing bounds it."""
