"""Settings of a tokenizer. The model's part (TokenizerConfig) is saved with the weights, the training part is not."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from seqtok_core.foundation.config import Config

Positive = Annotated[int, Field(ge=1)]


class TextConfig(Config):
    """The open_clip text tower and the space that it shares with prefixes."""

    vocab_size: Positive | None = None  # None: filled in from the captions model when a run is built
    context: Positive = 48  # text tokens, <eos> included
    width: Positive = 128
    layers: Positive = 2
    heads: Positive = 4
    embed_dim: Positive = 64  # E


class TokenizerConfig(Config):
    """The tokenizer's shape. Lengths in tokens, sizes in pixels."""

    image_size: Positive = 256  # training size; other multiples of the patch can be encoded
    patch_size: Positive = 16
    num_latents: Positive = 64  # K
    latent_dim: Positive = 16  # D
    encoder: Literal["titok", "qformer"] = "titok"
    bottleneck: Literal["rms"] = "rms"
    decoder: Literal["pixel"] = "pixel"
    width: Positive = 768
    heads: Positive = 12
    encoder_layers: Positive = 12
    decoder_layers: Positive = 12
    text: TextConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> TokenizerConfig:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}; "
                f"choose one of {[p for p in (4, 8, 14, 16, 32) if self.image_size % p == 0]}"
            )
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width={self.width} must be a multiple of 4 and of heads={self.heads}")
        return self


class TokenizerTrainingConfig(Config):
    """What the objective asks for: prefixes, noise, and how strongly text shapes the order."""

    latent_noise: Annotated[float, Field(ge=0)] = 0.1  # std of Gaussian noise on unit-RMS latents
    # An image decoded from k latents counts (k / K) ** length_weight: squared errors fall with k, and unweighted the
    # short prefixes' unavoidable error drowns the gradient of the long ones (21.6 against 22.7 dB at K, 300 steps).
    length_weight: Annotated[float, Field(ge=0)] = 0.7
    # Weight of the error's gradient in the pixel loss: a wrong corner costs few pixels but is another shape.
    edge_weight: Annotated[float, Field(ge=0)] = 4.0
    text_weight: Annotated[float, Field(ge=0)] = 0.1  # 0 with a text tower: text is measured, not taught
    level_starts: tuple[Positive, ...] | None = None  # shortest prefix that must know each caption level
    logit_scale_max: float = 100.0
    seed: int = 0
