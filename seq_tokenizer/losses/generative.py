"""The loss of a generative decoder, for a short prefix and for the whole sequence, in place of losses on pictures.

Shapes: B images, K latents.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seqtok_core.foundation.config import Config


class GenerativeConfig(Config):
    """How much a generative decoder's own loss counts."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    # An image drawn from k latents counts (k / K) ** length_weight, as in losses/pixels.py.
    length_weight: Annotated[float, Field(ge=0)] = 0.7


class GenerativeTerm(Term):
    needs_decoder_loss: ClassVar[bool] = True

    def __init__(self, config: GenerativeConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        assert view.decoder_loss is not None
        short, whole = view.decoder_loss.chunk(2)
        weight = (view.prefix / view.latents.shape[1]) ** self.config.length_weight
        loss = (weight * short + whole).mean()
        return self.config.weight * loss, {"decoder_loss": loss.detach()}
