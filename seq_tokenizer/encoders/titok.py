"""The TiTok encoder (Yu et al., 2024): patches and latent queries in one sequence.

Shapes: B images, n patches, K latents.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from seq_tokenizer.encoders.base import Encoder, recorded_inputs, shares
from seq_tokenizer.encoders.patches import PatchConfig, PatchInput
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.layers.blocks import Block, init_linear, readout_mask


class TitokConfig(PatchConfig):
    kind: Literal["titok"] = "titok"


class TitokEncoder(Encoder):
    """Patches and queries in one stack of self-attention, under a mask that is causal among the queries."""

    MUON_EXCLUDED = ("queries",)

    def __init__(self, config: TitokConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.patches = PatchInput(config, shape)
        self.queries = nn.Parameter(torch.randn(shape.num_latents, shape.width))
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads, i) for i in range(shape.encoder_layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        init_linear(self.blocks, shape.encoder_layers)

    def forward(self, pixels: Tensor, num_tokens: int | None = None, states: dict[str, Tensor] | None = None) -> Tensor:
        patches, queries = self.patches(pixels), self.queries[:num_tokens]
        x = torch.cat([patches, queries.expand(len(pixels), -1, -1).to(patches.dtype)], 1)
        mask = readout_mask(patches.shape[1], len(queries), x.device)
        for layer, block in enumerate(self.blocks[:-1], start=1):
            x = block(x, mask)
            if states is not None and layer == len(self.blocks) // 2:
                states["encoder patches"] = x[:, : patches.shape[1]]
        return self.norm(self.blocks[-1](x, mask, rows=slice(patches.shape[1], None)))  # patches end here

    @torch.no_grad()
    def looks(self, pixels: Tensor) -> Tensor:
        layers: list[Any] = [block.attention for block in self.blocks]
        given = recorded_inputs(layers, lambda: self(pixels))
        patches = pixels.shape[-2] * pixels.shape[-1] // self.patches.patch**2
        pairs = zip(layers, given, strict=True)
        return shares([layer.weights(x, mask)[..., patches:, :patches] for layer, (x, mask, *_) in pairs])
