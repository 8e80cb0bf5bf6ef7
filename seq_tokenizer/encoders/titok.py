"""The TiTok encoder (Yu et al., 2024): patches and latent queries in one sequence.

Shapes: B images, n patches, K latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.encoders.patches import PatchInput
from seqtok_core.layers.blocks import Block, init_linear, readout_mask


class TitokEncoder(nn.Module):
    """Patches and queries in one stack of self-attention, under a mask that is causal among the queries."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patches = PatchInput(config)
        self.queries = nn.Parameter(torch.randn(config.num_latents, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, i) for i in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        init_linear(self.blocks, config.encoder_layers)

    def forward(self, pixels: Tensor, num_tokens: int | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, k, W), k = num_tokens or K."""
        patches, queries = self.patches(pixels), self.queries[:num_tokens]
        x = torch.cat([patches, queries.expand(len(pixels), -1, -1).to(patches.dtype)], 1)
        mask = readout_mask(patches.shape[1], len(queries), x.device)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        return self.norm(self.blocks[-1](x, mask, rows=slice(patches.shape[1], None)))  # patches end here
