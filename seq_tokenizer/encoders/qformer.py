"""The cross-attention encoder (BLIP-2's Q-Former, Li et al., 2023): queries read the patches.

Shapes: B images, n patches, K latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.encoders.patches import PatchInput
from seqtok_core.layers.blocks import Block, causal_mask, init_linear


class QFormerEncoder(nn.Module):
    """A Transformer over the patches, then queries with causal self-attention that cross-attend to them.

    The layers are shared out evenly: the first half over the patches, the second over the queries.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        trunk = max(config.encoder_layers // 2, 1)
        readers = max(config.encoder_layers - trunk, 1)
        self.patches = PatchInput(config)
        self.queries = nn.Parameter(torch.randn(config.num_latents, config.width))
        self.trunk = nn.ModuleList(Block(config.width, config.heads, i) for i in range(trunk))
        self.norm_trunk = nn.LayerNorm(config.width, bias=False)
        self.readers = nn.ModuleList(Block(config.width, config.heads, i, cross=True) for i in range(readers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        init_linear(self.trunk, config.encoder_layers)
        init_linear(self.readers, config.encoder_layers)

    def forward(self, pixels: Tensor, num_tokens: int | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, k, W), k = num_tokens or K."""
        context = self.patches(pixels)
        for block in self.trunk:
            context = block(context)
        context = self.norm_trunk(context)
        x = self.queries[:num_tokens].expand(len(pixels), -1, -1).to(context.dtype)
        mask = causal_mask(x.shape[1], x.device)
        for block in self.readers:
            x = block(x, mask, context=context)
        return self.norm(x)
