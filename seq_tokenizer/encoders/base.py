"""What an encoder is: from pixels to ordered tokens, of which the first do not depend on how many are asked for.

Shapes: B images, N patches, K queries, H heads, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Token i is a function of the image and of tokens < i alone."""

    @abstractmethod
    def forward(self, pixels: Tensor, num_tokens: int | None = None, states: dict[str, Tensor] | None = None) -> Tensor:
        """pixels (B, 3, H, W) float in [-1, 1], H and W multiples of the patch -> (B, k, W), k = num_tokens or K.

        `states`, where it is handed in, takes the patches, row by row, as the first half of the layers made them, if
        there is such a half: "encoder patches" (B, N, W).
        """

    @abstractmethod
    def looks(self, pixels: Tensor) -> Tensor:
        """Where each token looks: pixels as above -> (B, K, N) float32, the share of its attention to patches that goes
        to each, row by row, as a mean over layers and heads. Rows sum to 1.

        Patches have looked at each other before tokens look at them: what a token finds in one place it may know from
        another. Not while another thread uses the encoder.
        """


def recorded_inputs(layers: Iterable[nn.Module], run: Callable[[], object]) -> list[tuple[Any, ...]]:
    """What each of `layers` is given while `run` runs, in order."""
    inputs: list[tuple[Any, ...]] = []
    hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given)) for layer in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def shares(weights: Sequence[Tensor]) -> Tensor:
    """Each layer's attention of tokens to patches (B, H, K, N) -> (B, K, N): their mean, made to sum to 1."""
    mean = torch.stack([layer.mean(1) for layer in weights]).mean(0)
    return mean / mean.sum(-1, keepdim=True)
