"""The cross-attention encoder (BLIP-2's Q-Former, Li et al., 2023): queries read the patches.

Shapes: B images, n patches, K latents.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from seq_tokenizer.encoders.base import Encoder
from seq_tokenizer.encoders.patches import PatchInput
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.layers.blocks import Block, causal_mask, init_linear


class QFormerConfig(Config):
    kind: Literal["qformer"] = "qformer"


class QFormerEncoder(Encoder):
    """A Transformer over the patches, then queries with causal self-attention that cross-attend to them.

    The layers are shared out evenly: the first half over the patches, the second over the queries.
    """

    MUON_EXCLUDED = ("queries",)

    def __init__(self, config: QFormerConfig, shape: TokenizerShape) -> None:
        super().__init__()
        trunk = max(shape.encoder_layers // 2, 1)
        readers = max(shape.encoder_layers - trunk, 1)
        self.patches = PatchInput(shape)
        self.queries = nn.Parameter(torch.randn(shape.num_latents, shape.width))
        self.trunk = nn.ModuleList(Block(shape.width, shape.heads, i) for i in range(trunk))
        self.norm_trunk = nn.LayerNorm(shape.width, bias=False)
        self.readers = nn.ModuleList(Block(shape.width, shape.heads, i, cross=True) for i in range(readers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        init_linear(self.trunk, shape.encoder_layers)
        init_linear(self.readers, shape.encoder_layers)

    def forward(self, pixels: Tensor, num_tokens: int | None = None, states: dict[str, Tensor] | None = None) -> Tensor:
        context = self.patches(pixels)
        for block in self.trunk:
            context = block(context)
        context = self.norm_trunk(context)
        if states is not None:
            states["encoder patches"] = context
        x = self.queries[:num_tokens].expand(len(pixels), -1, -1).to(context.dtype)
        mask = causal_mask(x.shape[1], x.device)
        for block in self.readers:
            x = block(x, mask, context=context)
        return self.norm(x)
