"""Each token is one of V learned vectors (van den Oord et al. 2017, arXiv:1711.00937), by vector-quantize-pytorch; the
gradient is turned with the rounding (Fifty et al. 2024, arXiv:2410.06424). Shapes: B images, K tokens, D channels.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.bottlenecks.discrete import DiscreteBottleneck, vector_quantize_pytorch
from seq_tokenizer.bottlenecks.rms import unit_rms
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config


class VqConfig(Config):
    kind: Literal["vq"] = "vq"
    codebook_size: Annotated[int, Field(ge=2)] = 4096  # V
    commitment: Annotated[float, Field(ge=0)] = 0.25  # weight of the distance between a latent and its entry


class VqBottleneck(DiscreteBottleneck):
    """Latents of unit RMS, so that entries and latents stay in reach of each other."""

    MUON_EXCLUDED = ("quantizer._codebook.embed",)

    def __init__(self, config: VqConfig, shape: TokenizerShape) -> None:
        super().__init__(shape)
        self.config, self.codebook_size = config, config.codebook_size
        self.quantizer = vector_quantize_pytorch().VectorQuantize(
            dim=shape.latent_dim,
            codebook_size=config.codebook_size,
            learnable_codebook=True,
            ema_update=False,
            commitment_weight=1.0,
            sync_codebook=False,
        )
        nn.init.normal_(self.quantizer._codebook.embed)

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        z, codes, loss = self.quantizer(unit_rms(x))
        return z, codes, self.config.commitment * loss.sum()

    def look_up(self, codes: Tensor) -> Tensor:
        return self.quantizer.get_output_from_indices(codes).float()
