"""A term of the objective, and what all terms see of a batch: pictures are encoded and decoded once for all of them.

Shapes: B images, K latents of D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from data_pipelines.samples import ImageTextBatch
from seq_tokenizer.tokenizer import SeqTokenizer
from seqtok_core.layers.randomness import Draws


@dataclass(frozen=True)
class View:
    """A batch on its way through the tokenizer. Every image is decoded twice, from a drawn prefix and from all.

    Of a generative decoder there are no pictures, which would cost many steps, but its own loss.
    """

    batch: ImageTextBatch
    pixels: Tensor  # (B, 3, H, W) in [-1, 1]
    latents: Tensor  # (B, K, D), as they came out of the bottleneck
    prefix: Tensor  # (B,) int64, the drawn length of each image's short decoding
    pictures: Tensor | None  # (2 B, 3, H, W) float32: from the prefixes, then from all latents
    draws: Draws
    tokenizer: SeqTokenizer
    decoder_loss: Tensor | None = None  # (2 B,) float32, of a generative decoder, in the same order

    @property
    def decoded(self) -> Tensor:
        """(2 B, 3, H, W): the pictures, where a term needs them."""
        assert self.pictures is not None, "a term of decoded pictures says so in `needs_pictures`"
        return self.pictures

    @property
    def short(self) -> Tensor:
        """(B, 3, H, W) decoded from the drawn prefixes."""
        return self.decoded[: len(self.pixels)]

    @property
    def whole(self) -> Tensor:
        """(B, 3, H, W) decoded from all latents."""
        return self.decoded[len(self.pixels) :]


class Term(nn.Module, ABC):
    """Owns its weight, its settings and, where it has some, its networks."""

    needs_text: ClassVar[bool] = False  # left out where the tokenizer has no text tower
    needs_pictures: ClassVar[bool] = False  # left out where the decoder is generative
    needs_decoder_loss: ClassVar[bool] = False  # left out where it is not

    @abstractmethod
    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """-> what is added to the objective, its weight in it, and the scalars to log by name."""
