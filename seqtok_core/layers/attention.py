"""Multi-head attention with fused projections over torch's scaled_dot_product_attention.

Shapes: B batch, N tokens, M context tokens, W width, H heads, C = W / H.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from seqtok_core.layers.rope import apply_rope


class KeyValueStore(Protocol):
    """What a layer needs of a cache: append keys and values (B, H, n, C), get back all of them so far."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]: ...


fused_on_cpu = ContextVar("fused_on_cpu", default=False)  # True: on CPU as on a GPU, where only sizes are of interest
_SHORT = 256  # tokens; beyond it the weights of a whole batch no longer fit the caches


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention: q (B, H, N, C), k and v (B, H, M, C), mask bool, True = may look -> (B, H, N, C).

    In bfloat16 on CPU short sequences are multiplied out: the backward pass of torch's fused kernel took 28 ms
    where this takes 3.5 ms (B=128, H=4, N=32, C=32, one core with AVX-512 BF16).
    """
    short = max(q.shape[-2], k.shape[-2]) <= _SHORT
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and short and not fused_on_cpu.get():
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """What `attend` mixes values by: q (B, H, N, C), k (B, H, M, C) -> (B, H, N, M) float32, rows sum to 1."""
    scores = (q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-1, -2)
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)


class SelfAttention(nn.Module):
    """`layer` is the place in the stack: the key under which a cache keeps this layer's keys and values."""

    def __init__(self, width: int, heads: int, layer: int = 0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}")
        self.heads, self.layer = heads, layer
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rope: Tensor | None = None,
        cache: KeyValueStore | None = None,
        rows: slice = slice(None),
    ) -> Tensor:
        """x (B, N, W), mask (N, M) or (B, 1, N, M) bool with True = may look, rope (2, N, C) -> (B, R, W).

        `rows` are the R tokens whose output is wanted (all of them by default); the others are only looked at.
        """
        q, k, v = rearrange(self.qkv(x), "b n (s h c) -> s b h n c", s=3, h=self.heads)
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        q, mask = q[:, :, rows], mask if mask is None else mask[..., rows, :]
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        mixed = attend(q, k, v, mask)
        return self.out(rearrange(mixed, "b h n c -> b n (h c)"))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much of each token every token of `forward` takes, without rotation and cache: (B, H, N, N) float32."""
        q, k, _ = rearrange(self.qkv(x), "b n (s h c) -> s b h n c", s=3, h=self.heads)
        return attention_weights(q, k, mask)


class CrossAttention(nn.Module):
    """Queries from x, keys and values from a context of the same width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, W), context (B, M, W), mask (N, M) or (B, 1, N, M) bool with True = may look -> (B, N, W)."""
        mixed = attend(*self._heads(x, context), mask)
        return self.out(rearrange(mixed, "b h n c -> b n (h c)"))

    def weights(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much of each context token every query of `forward` takes: (B, H, N, M) float32."""
        q, k, _ = self._heads(x, context)
        return attention_weights(q, k, mask)

    def _heads(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = rearrange(self.query(x), "b n (h c) -> b h n c", h=self.heads)
        k, v = rearrange(self.key_value(context), "b m (s h c) -> s b h m c", s=2, h=self.heads)
        return q, k, v
