"""Seams: 1 for the original, above where patches differ in tone, and only on the grid of the patches."""

from __future__ import annotations

import pytest
import torch

from seqtok.evaluation.metrics.seams import seam_ratio
from seqtok_core.foundation.errors import ConfigError


def smooth(count: int = 4, size: int = 32) -> torch.Tensor:
    """Ramps of several directions: the same change everywhere."""
    x = torch.linspace(0, 1, size)
    ramps = [40 + 120 * (a * x[:, None] + (1 - a) * x) for a in torch.linspace(0, 1, count).tolist()]
    return torch.stack(ramps)[:, None].expand(-1, 3, -1, -1).byte()


def with_tones(pictures: torch.Tensor, patch: int, strength: int) -> torch.Tensor:
    """Every patch a little lighter or darker, as a chessboard."""
    cell = torch.arange(pictures.shape[-1]) // patch
    sign = 1 - 2 * ((cell[:, None] + cell) % 2)
    return (pictures.int() + strength * sign).clamp(0, 255).byte()


def test_an_original_has_no_seams_however_its_shapes_lie():
    assert seam_ratio(smooth(), smooth(), 8) == 1.0
    on_the_grid = with_tones(smooth(), 8, 30)
    assert seam_ratio(on_the_grid, on_the_grid, 8) == 1.0


def test_seams_grow_with_their_strength_and_lie_on_the_grid():
    ratios = [seam_ratio(with_tones(smooth(), 8, s), smooth(), 8) for s in (1, 4, 16)]
    assert 1.0 < ratios[0] < ratios[1] < ratios[2]
    noise = 8 * torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, other = (smooth().float() + noise).clamp(0, 255).byte()
    assert seam_ratio(one, other, 8) == pytest.approx(1.0, abs=0.15), "noise is everywhere alike"


def test_it_is_the_ratio_of_its_definition():
    """One row of four pixels, patches of two: the border's square over the mean of the others."""
    picture = torch.tensor([0, 2, 10, 13], dtype=torch.uint8).expand(1, 3, 4, 4)  # columns; rows do not change
    flat = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).expand(1, 3, 4, 4)
    border, inside = (64 + 0) / 2, (4 + 9 + 0 + 0) / 4
    plain = ((4 + 0) / 2) / ((4 + 4 + 0 + 0) / 4)
    assert seam_ratio(picture, flat, 2) == pytest.approx(border / inside / plain)
    assert seam_ratio(picture.mT, flat.mT, 2) == pytest.approx(border / inside / plain)


def test_pictures_of_one_patch_are_refused():
    with pytest.raises(ConfigError, match="patches of 32"):
        seam_ratio(smooth(), smooth(), 32)
