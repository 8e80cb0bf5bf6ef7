"""Pre-norm Transformer blocks and the masks that order their tokens.

Norms are LayerNorm without bias: on CPU its forward and backward are single kernels, while RMSNorm runs as three
elementwise passes and took most of a small model's step.

Shapes: B batch, N tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqtok_core.layers.attention import CrossAttention, KeyValueStore, SelfAttention


class Mlp(nn.Sequential):
    """W -> ratio W -> W with GELU."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__(
            nn.Linear(width, ratio * width, bias=False),
            nn.GELU(),
            nn.Linear(ratio * width, width, bias=False),
        )


class Block(nn.Module):
    """Self-attention, then cross-attention where `cross` is set, then an MLP, each behind a norm and a sum."""

    def __init__(self, width: int, heads: int, layer: int = 0, cross: bool = False) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, bias=False)
        self.attention = SelfAttention(width, heads, layer)
        self.norm_cross = nn.LayerNorm(width, bias=False) if cross else None
        self.cross = CrossAttention(width, heads) if cross else None
        self.norm_mlp = nn.LayerNorm(width, bias=False)
        self.mlp = Mlp(width)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rope: Tensor | None = None,
        context: Tensor | None = None,
        cache: KeyValueStore | None = None,
        rows: slice = slice(None),
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """x (B, N, W) -> (B, R, W); see SelfAttention for mask, rope and rows, CrossAttention for context and its
        mask."""
        x = x[:, rows] + self.attention(self.norm_attention(x), mask, rope, cache, rows)
        if self.cross is not None and self.norm_cross is not None:
            if context is None:
                raise ValueError("a block with cross-attention needs a context")
            x = x + self.cross(self.norm_cross(x), context, context_mask)
        return x + self.mlp(self.norm_mlp(x))


class ModulatedBlock(nn.Module):
    """A block whose norms are shifted, scaled and gated by a condition (AdaLN; Peebles and Xie 2023, arXiv:2212.09748).

    The modulation is made once for all blocks, and each adds offsets of its own (Chen et al. 2023, arXiv:2310.00426):
    a map from the condition in every block would make it half as large again. Gates are open at first.
    """

    MUON_EXCLUDED = ("offsets",)

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.mlp = Mlp(width)
        self.offsets = nn.Parameter(torch.tensor([0.0, 0.0, 1.0] * 2)[:, None].repeat(1, width))

    def forward(self, x: Tensor, modulation: Tensor, rows: slice = slice(None)) -> Tensor:
        """x (B, N, W), modulation (B, 6, W) -> (B, R, W); see SelfAttention for rows."""
        m = (modulation + self.offsets).to(x.dtype)[:, :, None].unbind(1)  # 6 of (B, 1, W): shift, scale, gate, twice
        y = self.attention(torch.addcmul(m[0], self.norm(x), 1 + m[1]), rows=rows)
        x = torch.addcmul(x[:, rows], m[2], y)
        return torch.addcmul(x, m[5], self.mlp(torch.addcmul(m[3], self.norm(x), 1 + m[4])))


def init_linear(module: nn.Module, depth: int) -> None:
    """GPT-2's initialisation: std 1/sqrt(fan in), outputs into the residual stream smaller by sqrt(2 depth)."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            into_residual = name.endswith(("attention.out", "cross.out", "mlp.2"))
            scale = (2 * depth) ** -0.5 if into_residual else 1.0
            nn.init.normal_(child.weight, std=scale * child.in_features**-0.5)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def causal_mask(length: int, device: torch.device | None = None) -> Tensor:
    """(N, N) bool: token i sees tokens <= i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def readout_mask(patches: int, queries: int, device: torch.device | None = None) -> Tensor:
    """(P + Q, P + Q) bool: patches see patches; query i sees every patch and queries <= i."""
    mask = torch.zeros(patches + queries, patches + queries, dtype=torch.bool, device=device)
    mask[:, :patches] = True
    mask[patches:, patches:] = causal_mask(queries, device)
    return mask
