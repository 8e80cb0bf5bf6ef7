"""Settings of a tokenizer, saved with its weights, and the card that shows them. Those of its training lie in
objective.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import model_validator
from torch import Tensor

from seq_tokenizer.bottlenecks.build import BottleneckConfig, features_of
from seq_tokenizer.bottlenecks.rms import RmsConfig
from seq_tokenizer.decoders.build import DecoderConfig
from seq_tokenizer.decoders.lossless import LaidBackConfig
from seq_tokenizer.decoders.pixel import PixelConfig
from seq_tokenizer.encoders.build import EncoderConfig, require_fit
from seq_tokenizer.encoders.lossless import LosslessConfig
from seq_tokenizer.encoders.qformer import QFormerConfig
from seq_tokenizer.latents import LatentSpec
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
    # Which tokens the text reads: those of a prefix, or the last of all tokens alone (SEED, arXiv:2307.08041).
    readout: Annotated[Literal["prefix", "last"], LATER] = "prefix"

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


def tokenizer_card(config: TokenizerConfig, spec: LatentSpec, weights: Mapping[str, Tensor]) -> str:
    """README.md of the model folder, in the words that the hub and a stranger expect."""
    parameters = sum(tensor.numel() for tensor in weights.values())
    text = f"{config.text.layers} layers of width {config.text.width}" if config.text else "none"
    return f"""---
library_name: seqtok
pipeline_tag: feature-extraction
---
# Tokenizer of seqtok

An image becomes {spec.length} ordered tokens of {spec.dim} channels; any prefix of them is an image.

| | |
| --- | --- |
| parameters | {parameters / 1e6:.2f} M |
| pictures | {config.image_size} px in patches of {config.patch_size} |
| encoder | {config.encoder.kind}, {config.encoder_layers} layers of width {config.width} |
| decoder | {config.decoder.kind}, {config.decoder_layers} layers |
| text tower | {text} |
| tokenizer id | `{spec.tokenizer_id}` |

```python
from seq_tokenizer import SeqTokenizer

tokenizer = SeqTokenizer.from_pretrained("this folder")
latents = tokenizer.encode(images)         # images (B, 3, H, W) in [-1, 1] -> (B, {spec.length}, {spec.dim})
preview = tokenizer.decode(latents[:, :4])  # any prefix is an image
```
"""
