"""What a head is: from a hidden state to the next latent. Other heads are files beside flow.py.

Shapes: B samples, K latents of D channels, W width of the Transformer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from seqtok_core.layers.randomness import Draws


class Sampler(Protocol):
    """Draws one latent per row. What does not depend on the token was computed when the sampler was made."""

    def __call__(self, h: Tensor, free: Tensor | None, scale: float, draws: Draws, place: int | Tensor) -> Tensor:
        """h (B, W) with the prompt, free (B, W) without it or None for no guidance, `scale` of the guidance,
        `place` of the token from 0, of every row its own where it is (B,) int64 -> z (B, D), standardised. All
        randomness comes from `draws`, which then tells rows of different places apart."""
        ...


def stream(place: int | Tensor) -> str:
    """Of the random numbers of a token."""
    return f"sample/{place}" if isinstance(place, int) else "sample/each"


class Head(nn.Module, ABC):
    """Made from its config, the width W and D. Weights lie in submodules called as modules: ZeRO 3 does not see
    methods of the head itself."""

    kind: ClassVar[str]

    @abstractmethod
    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        """h (B, K, W), the z (B, K, D) it should lead to -> (B, K) float32."""

    @abstractmethod
    def sampler(self, temperature: float, config: Any) -> Sampler:
        """`config`: this head's part of the sampling settings."""


class NoHead(Head):
    """Stands where the Transformer itself leads noise to latents, along the straight path of the flow head."""

    kind = "flow"

    def loss(self, h: Tensor, z: Tensor, draws: Draws) -> Tensor:
        raise TypeError("the sequence has a loss of its own")

    def sampler(self, temperature: float, config: Any) -> Sampler:
        raise TypeError("the sequence draws its latents itself")
