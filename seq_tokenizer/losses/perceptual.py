"""Pictures shall look alike to a frozen network: the distance of its features, for a short prefix and for the whole.

As LPIPS without its weights (Zhang et al. 2018, arXiv:1801.03924): features of unit length over channels, squared
differences summed over channels, averaged over places and layers. Judge with another network than this one.

Shapes: B images, K latents, C channels, h x w places.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.losses.frozen import FrozenConfig, FrozenNetwork


class PerceptualConfig(FrozenConfig):
    weight: Annotated[float, Field(ge=0)] = 0.1
    length_weight: Annotated[float, Field(ge=0)] = 0.7  # an image of k latents counts (k / K) ** length_weight


class PerceptualTerm(Term):
    needs_pictures: ClassVar[bool] = True

    def __init__(self, config: PerceptualConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config, self.network = config, FrozenNetwork(config, "perceptual")
        self.network.channels(tokenizer.image_size)  # what does not fit is said before the first step

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            real = [F.normalize(found.float(), dim=1) for found in self.network(view.pixels)]
        drawn = [F.normalize(found.float(), dim=1) for found in self.network(view.decoded)]
        short, whole = torch.stack([_distance(a, b) for a, b in zip(drawn, real, strict=True)]).mean(0).chunk(2)
        weight = (view.prefix / view.latents.shape[1]) ** self.config.length_weight
        loss = (weight * short + whole).mean()
        return self.config.weight * loss, {"perceptual_loss": loss.detach()}


def _distance(drawn: Tensor, real: Tensor) -> Tensor:
    """(2 B, C, h, w), (B, C, h, w) -> (2 B,)."""
    return (drawn - torch.cat([real, real])).square().sum(1).mean((1, 2))
