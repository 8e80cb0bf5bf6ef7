"""The cross-attention encoder (BLIP-2's Q-Former, Li et al., 2023): queries read the patches.

Shapes: B images, n patches, K latents.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.encoders.base import Encoder, recorded_inputs, shares
from seq_tokenizer.encoders.patches import PatchConfig, PatchInput
from seq_tokenizer.shape import Positive, TokenizerShape
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.blocks import Block, causal_mask, init_linear


class QFormerConfig(PatchConfig):
    kind: Literal["qformer"] = "qformer"
    trunk_layers: Positive | None = None  # of encoder_layers, over the patches; null: half of them
    registers: Annotated[int, Field(ge=0)] = 0  # tokens of no place beside the patches (Darcet et al., 2309.16588)


class QFormerEncoder(Encoder):
    """A Transformer over the patches, then queries with causal self-attention that cross-attend to them.

    Queries are few: a layer that reads costs less than one of the trunk.
    """

    def __init__(self, config: QFormerConfig, shape: TokenizerShape) -> None:
        super().__init__()
        trunk = config.trunk_layers or max(shape.encoder_layers // 2, 1)
        readers = max(shape.encoder_layers, 2) - trunk
        if readers < 1:
            raise ConfigError(
                f"encoder.trunk_layers={trunk} of encoder_layers={shape.encoder_layers}: at least one layer must be "
                "left to read the patches"
            )
        self.MUON_EXCLUDED = ("queries", "registers") if config.registers else ("queries",)
        self.patches = PatchInput(config, shape)
        self.queries = nn.Parameter(torch.randn(shape.num_latents, shape.width))
        self.registers = nn.Parameter(torch.randn(config.registers, shape.width)) if config.registers else None
        self.trunk = nn.ModuleList(Block(shape.width, shape.heads, i) for i in range(trunk))
        self.norm_trunk = nn.LayerNorm(shape.width, bias=False)
        self.readers = nn.ModuleList(Block(shape.width, shape.heads, i, cross=True) for i in range(readers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        init_linear(self.trunk, shape.encoder_layers)
        init_linear(self.readers, shape.encoder_layers)

    def sees_queries(self, count: int, device: torch.device) -> Tensor | None:
        """(count, count) bool: which of the first `count` queries each of them sees; None: all."""
        return causal_mask(count, device)

    def sees_patches(self, count: int, rows: int, columns: int, device: torch.device) -> Tensor | None:
        """(count, n) bool: which of rows x columns patches each of the first `count` queries reads; None: all."""
        return None

    def forward(self, pixels: Tensor, num_tokens: int | None = None, states: dict[str, Tensor] | None = None) -> Tensor:
        context = self.patches(pixels)
        if self.registers is not None:
            context = torch.cat([context, self.registers.expand(len(pixels), -1, -1).to(context.dtype)], 1)
        for block in self.trunk:
            context = block(context)
        context = self.norm_trunk(context)
        rows, columns = (side // self.patches.patch for side in pixels.shape[-2:])
        if states is not None:
            states["encoder patches"] = context[:, : rows * columns]  # registers behind them have no place
        x = self.queries[:num_tokens].expand(len(pixels), -1, -1).to(context.dtype)
        mask, readable = self.sees_queries(x.shape[1], x.device), self.sees_patches(x.shape[1], rows, columns, x.device)
        for block in self.readers:
            x = block(x, mask, context=context, context_mask=readable)
        return self.norm(x)

    @torch.no_grad()
    def looks(self, pixels: Tensor) -> Tensor:
        layers: list[Any] = [block.cross for block in self.readers]
        given = recorded_inputs(layers, lambda: self(pixels))
        patches = pixels.shape[-2] * pixels.shape[-1] // self.patches.patch**2  # registers stand behind them
        return shares([layer.weights(*own)[..., :patches] for layer, own in zip(layers, given, strict=True)])
