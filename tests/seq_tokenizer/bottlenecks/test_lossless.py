"""Lossless tokens: the picture comes back bit for bit, in every order, and a prefix is its first patches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seq_tokenizer import SeqTokenizer
from seq_tokenizer.config import TokenizerConfig, lossless_config
from seq_tokenizer.orders.grid import ORDERS
from seqtok_core.foundation.errors import ConfigError


def pictures(count: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("order", ORDERS)
def test_a_picture_comes_back_bit_for_bit(order: str, tmp_path: Path) -> None:
    tokenizer = SeqTokenizer(lossless_config(16, 4, order))
    latents = tokenizer.encode(pictures())
    assert latents.shape == (3, 16, 48)
    assert torch.equal(tokenizer.decode(latents), pictures())
    assert torch.equal(tokenizer.encode(pictures(), 5), latents[:, :5])
    tokenizer.measure_latents([pictures(40)])
    tokenizer.save_pretrained(tmp_path / "model")
    again = SeqTokenizer.from_pretrained(tmp_path / "model")
    assert again.tokenizer_id == tokenizer.tokenizer_id
    assert torch.equal(again.encode(pictures()), latents)
    z = again.spec.normalise(tokenizer.encode(pictures(40)))
    torch.testing.assert_close(z.mean(0), torch.zeros(16, 48), atol=1e-4, rtol=0)


def test_a_prefix_is_the_first_patches_on_gray() -> None:
    tokenizer = SeqTokenizer(lossless_config(16, 8))
    latents = tokenizer.encode(pictures())
    half = tokenizer.decode(latents, torch.tensor([1, 2, 4]))
    assert torch.equal(half[2], pictures()[2])
    assert torch.equal(half[1, :, :8], pictures()[1, :, :8])
    assert not half[1, :, 8:].any()
    assert not half[0, :, :8, 8:].any()
    assert torch.equal(tokenizer.decode(latents[:, :2]), tokenizer.decode(latents, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_latents": 8}, "set num_latents=16 and latent_dim=48"),
        ({"decoder": {"kind": "pixel"}}, "of this kind together, or none of them"),
        ({"decoder": {"kind": "lossless", "order": "snake"}}, "not the encoder's, raster"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    values = lossless_config(16, 4).model_dump() | changes
    with pytest.raises(ConfigError, match=message):
        TokenizerConfig.parse(values)


def test_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="lossless tokens are those of 16 x 16"):
        SeqTokenizer(lossless_config(16, 4)).encode(pictures(size=32))
