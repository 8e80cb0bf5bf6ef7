"""The sizes that every part of a tokenizer shares. Lengths in tokens, sizes in pixels, widths in channels."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from seqtok_core.foundation.config import LATER, Config, fill_preset

Positive = Annotated[int, Field(ge=1)]

# Where patches lie. absolute: in patches from the corner, so that a larger picture reaches places never trained;
# per_axis: every picture spans the training grid; longer_side: its longer side does, and it lies in the middle.
Positions = Literal["absolute", "per_axis", "longer_side"]

# S, B and L are the ViTs of TiTok (arXiv:2406.07550, table 1), tiny is the demo's.
PRESETS = {
    "tiny": {"width": 128, "heads": 4, "encoder_layers": 3, "decoder_layers": 3},
    "S": {"width": 512, "heads": 8, "encoder_layers": 8, "decoder_layers": 8},
    "B": {"width": 768, "heads": 12, "encoder_layers": 12, "decoder_layers": 12},
    "L": {"width": 1024, "heads": 16, "encoder_layers": 24, "decoder_layers": 24},
}


class TokenizerShape(Config):
    """`preset` stands for width, heads and layers; each of them, given beside it, wins."""

    image_size: Positive = 256  # training size; other multiples of the patch can be encoded
    patch_size: Positive = 16
    num_latents: Positive = 64  # K
    latent_dim: Positive = 16  # D
    preset: Literal["tiny", "S", "B", "L"] | None = None
    width: Positive = 768
    heads: Positive = 12
    encoder_layers: Positive = 12
    decoder_layers: Positive = 12
    positions: Annotated[Positions, LATER] = "absolute"

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        return fill_preset(values, PRESETS)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}; "
                f"choose one of {[p for p in (4, 8, 14, 16, 32) if self.image_size % p == 0]}"
            )
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width={self.width} must be a multiple of 4 and of heads={self.heads}")
        return self
