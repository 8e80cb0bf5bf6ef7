"""What attention says of itself is what it does."""

from __future__ import annotations

import torch
from einops import rearrange

from seqtok_core.layers.attention import CrossAttention, SelfAttention
from seqtok_core.layers.blocks import causal_mask


def mixed_by(weights: torch.Tensor, values: torch.Tensor, heads: int) -> torch.Tensor:
    return rearrange(weights @ rearrange(values, "b m (h c) -> b h m c", h=heads), "b h n c -> b n (h c)")


def test_cross_attention_mixes_values_by_its_weights():
    torch.manual_seed(0)
    cross, x, context = CrossAttention(16, 2), torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]]).bool()
    for seen in (None, mask):
        weights = cross.weights(x, context, seen)
        values = cross.key_value(context)[..., 16:]
        torch.testing.assert_close(cross.out(mixed_by(weights, values, 2)), cross(x, context, seen))
    assert not weights[:, :, ~mask].any()


def test_self_attention_mixes_values_by_its_weights():
    torch.manual_seed(0)
    attention, x = SelfAttention(16, 2), torch.randn(2, 5, 16)
    for mask in (None, causal_mask(5)):
        weights = attention.weights(x, mask)
        values = attention.qkv(x)[..., 32:]
        torch.testing.assert_close(attention.out(mixed_by(weights, values, 2)), attention(x, mask))
