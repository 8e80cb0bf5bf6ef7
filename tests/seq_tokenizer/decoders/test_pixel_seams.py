"""Overlapping patches, which hide their seams: they fade into each other, and are off by default."""

from __future__ import annotations

import pytest
import torch

from seq_tokenizer import TokenizerConfig
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.embed import blend_patches
from tests.seq_tokenizer.toy import CONFIG, toy_latents, toy_tokenizer


def windows(picture: torch.Tensor, patch: int, overlap: int) -> torch.Tensor:
    """(B, 3, H, W) -> (B, N, 3 (p + 2 o)^2): what each overlapping patch would have to show."""
    columns = torch.nn.functional.unfold(picture, patch + 2 * overlap, padding=overlap, stride=patch)
    return columns.transpose(1, 2)


@pytest.mark.parametrize("overlap", [1, 2])
def test_patches_that_agree_blend_into_their_picture(overlap: int):
    picture = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    blended = blend_patches(windows(picture, 4, overlap), 4, overlap, (12, 20))
    torch.testing.assert_close(blended, picture, atol=1e-5, rtol=1e-5)


def test_patches_that_disagree_fade_into_each_other():
    """A dark and a light patch of 4 that overlap by 2 on each side: a ramp over 4 pixels instead of a step."""
    tones = torch.tensor([0.0, 1.0])[None, :, None].expand(1, 2, 3 * 64)
    row = blend_patches(tones, 4, 2, (4, 8))[0, 0, 0]
    torch.testing.assert_close(row, torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]))


@pytest.mark.parametrize("overlap", [1, 2])
def test_a_prefix_stays_a_picture_of_any_size(overlap: int):
    model, z = toy_tokenizer(text=False, decoder={"kind": "pixel", "overlap": overlap}), toy_latents()
    spoiled = z.clone()
    spoiled[:, 2:] = 100.0
    assert torch.equal(model.decode(spoiled, 2), model.decode(z, 2))
    assert model.decode(z, 2, size=(24, 20)).shape == (3, 3, 24, 20)
    assert torch.equal(model.decode(z, size=(16, 16)), model.decode(z))


def test_off_is_as_before():
    assert TokenizerConfig.parse(CONFIG).model_dump()["decoder"] == {"kind": "pixel"}


def test_an_overlap_beyond_the_neighbour_is_refused():
    with pytest.raises(ConfigError, match="at most 2 pixels"):
        toy_tokenizer(decoder={"kind": "pixel", "overlap": 3})
