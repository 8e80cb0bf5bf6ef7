"""What a decoder is: from any prefix of latents to a picture.

Shapes: B images, K latents of D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from seqtok_core.layers.randomness import Draws


class Decoder(nn.Module, ABC):
    """Deterministic, or generative: then it draws one of the pictures that a prefix may mean."""

    generative: ClassVar[bool] = False  # trained by its own `loss`, not by losses on its pictures

    @abstractmethod
    def forward(
        self,
        latents: Tensor,
        num_tokens: Tensor | int,
        draws: Draws | None = None,
        size: tuple[int, int] | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """latents (B, k, D), k <= K, of which the first num_tokens count -> (B, 3, H, W), about in [-1, 1].

        `states`, where it is handed in, takes what the first layer made, if there is a layer after it:
        "decoder patches" (B, N, W) and "decoder latents" (B, K, W).


        `size` is (H, W), multiples of the patch; None: that of training.
        `draws` say which of the pictures a generative decoder draws; without them it draws always the same.
        """

    def loss(self, latents: Tensor, num_tokens: Tensor | int, pixels: Tensor, draws: Draws) -> Tensor:
        """What a generative decoder is trained with: pixels (B, 3, H, W) -> (B,)."""
        raise NotImplementedError(f"{type(self).__name__} is trained by losses on its pictures")
