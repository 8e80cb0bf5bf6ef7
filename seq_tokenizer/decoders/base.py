"""What a decoder is: from any prefix of latents to a picture.

Shapes: B images, K latents of D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from seqtok_core.layers.randomness import Draws


class Decoder(nn.Module, ABC):
    """Deterministic, or generative with `draws`."""

    @abstractmethod
    def forward(
        self,
        latents: Tensor,
        num_tokens: Tensor | int,
        draws: Draws | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """latents (B, k, D), k <= K, of which the first num_tokens count -> (B, 3, H, W), about in [-1, 1].

        `states`, where it is handed in, takes what the first layer made, if there is a layer after it:
        "decoder patches" (B, N, W) and "decoder latents" (B, K, W).
        """

    def loss(self, latents: Tensor, num_tokens: Tensor | int, pixels: Tensor, draws: Draws) -> Tensor | None:
        """What a generative decoder is trained with: pixels (B, 3, H, W) -> (B,). None: by losses on its pictures."""
        return None
