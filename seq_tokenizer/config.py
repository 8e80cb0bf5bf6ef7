"""Settings of a tokenizer, saved with its weights. Those of its training lie in objective.py."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from seq_tokenizer.bottlenecks.build import BottleneckConfig, features_of
from seq_tokenizer.bottlenecks.rms import RmsConfig
from seq_tokenizer.decoders.build import DecoderConfig
from seq_tokenizer.decoders.lossless import LaidBackConfig
from seq_tokenizer.decoders.pixel import PixelConfig
from seq_tokenizer.encoders.build import EncoderConfig, require_fit
from seq_tokenizer.encoders.lossless import LosslessConfig
from seq_tokenizer.encoders.qformer import QFormerConfig
from seq_tokenizer.orders.grid import OrderName
from seq_tokenizer.shape import TokenizerShape
from seq_tokenizer.text.tower import TextConfig
from seq_tokenizer.text.writer import WriterConfig
from seqtok_core.foundation.config import LATER


def lossless_config(image_size: int, patch_size: int, order: OrderName = "raster", seed: int = 0) -> TokenizerConfig:
    """A tokenizer that learns nothing: its tokens are the patches themselves, in one of the fixed orders."""
    part = {"kind": "lossless", "order": order, "seed": seed}
    sizes = {"num_latents": (image_size // patch_size) ** 2, "latent_dim": 3 * patch_size**2}
    parts = {"encoder": part, "bottleneck": {"kind": "lossless"}, "decoder": part}
    return TokenizerConfig.parse({"image_size": image_size, "patch_size": patch_size, **sizes, **parts}, "lossless")


class TokenizerConfig(TokenizerShape):
    """The sizes, and of each part which one it is and its own settings."""

    encoder: EncoderConfig = QFormerConfig()
    bottleneck: BottleneckConfig = RmsConfig()
    decoder: DecoderConfig = PixelConfig()
    text: TextConfig | None = None
    writer: Annotated[WriterConfig | None, LATER] = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        require_fit(self.encoder, self, features_of(self.bottleneck, self))
        lossless = {
            self.encoder.kind == "lossless",
            self.bottleneck.kind == "lossless",
            self.decoder.kind == "lossless",
        }
        if len(lossless) == 2:
            raise ValueError("lossless: encoder, bottleneck and decoder are of this kind together, or none of them")
        if isinstance(self.encoder, LosslessConfig) and isinstance(self.decoder, LaidBackConfig):
            own, its = (self.encoder.order, self.encoder.seed), (self.decoder.order, self.decoder.seed)
            if own != its:
                raise ValueError(f"decoder.order={its[0]} is not the encoder's, {own[0]}; patches would change places")
        if self.writer is not None and self.text is None:
            raise ValueError("writer: it learns from captions, and this tokenizer has no text; leave it out")
        if self.writer is not None and max(self.writer.level_starts or (1,)) > self.num_latents:
            raise ValueError(f"writer.level_starts={self.writer.level_starts}: at most num_latents={self.num_latents}")
        return self
