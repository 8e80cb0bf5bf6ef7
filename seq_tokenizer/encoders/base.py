"""What an encoder is: from pixels to ordered tokens, of which the first do not depend on how many are asked for.

Shapes: B images, K queries, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Token i is a function of the image and of tokens < i alone."""

    @abstractmethod
    def forward(self, pixels: Tensor, num_tokens: int | None = None, states: dict[str, Tensor] | None = None) -> Tensor:
        """pixels (B, 3, H, W) float in [-1, 1], H and W multiples of the patch -> (B, k, W), k = num_tokens or K.

        `states`, where it is handed in, takes the patches, row by row, as the first half of the layers made them, if
        there is such a half: "encoder patches" (B, N, W).
        """
