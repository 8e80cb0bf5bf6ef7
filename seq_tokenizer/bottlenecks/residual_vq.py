"""Each token is a sum of Q learned vectors, each the nearest to what the ones before it leave (Lee et al. 2022,
arXiv:2203.01941), by vector-quantize-pytorch. Shapes: B images, K tokens, D channels, Q codes per token.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.bottlenecks.discrete import DiscreteBottleneck, vector_quantize_pytorch
from seq_tokenizer.bottlenecks.rms import unit_rms
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config


class ResidualVqConfig(Config):
    kind: Literal["residual_vq"] = "residual_vq"
    codebook_size: Annotated[int, Field(ge=2)] = 4096  # V, of each of the Q codebooks
    quantizers: Annotated[int, Field(ge=1)] = 4  # Q
    commitment: Annotated[float, Field(ge=0)] = 0.25  # weight of the distances between what is left and its entry


class ResidualVqBottleneck(DiscreteBottleneck):
    def __init__(self, config: ResidualVqConfig, shape: TokenizerShape) -> None:
        super().__init__(shape)
        self.config, self.codebook_size = config, config.codebook_size
        self.codes_per_token = config.quantizers
        self.MUON_EXCLUDED = tuple(f"quantizer.layers.{i}._codebook.embed" for i in range(config.quantizers))
        self.quantizer = vector_quantize_pytorch().ResidualVQ(
            dim=shape.latent_dim,
            codebook_size=config.codebook_size,
            num_quantizers=config.quantizers,
            learnable_codebook=True,
            ema_update=False,
            commitment_weight=1.0,
            sync_codebook=False,
        )
        for i, layer in enumerate(self.quantizer.layers):
            nn.init.normal_(layer._codebook.embed, std=0.5**i)  # about what is left after i roundings

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        z, codes, losses = self.quantizer(unit_rms(x))
        return z, codes.squeeze(-1) if self.codes_per_token == 1 else codes, self.config.commitment * losses.sum()

    def entries(self) -> Tensor:
        every = torch.arange(self.codebook_size, device=self.project.weight.device)
        same = every[None, :, None].expand(-1, -1, self.codes_per_token)  # each number in every codebook
        return self.quantizer.get_codes_from_indices(same).float()[:, 0]

    def look_up(self, codes: Tensor) -> Tensor:
        codes = codes[..., None] if self.codes_per_token == 1 else codes
        return self.quantizer.get_codes_from_indices(codes).float().sum(0)  # 16-bit entries are not added in 16 bits
