"""Fréchet distance: of Gaussians it is their known distance, of equal laws nearly nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipelines.scenes import make_scene
from seqtok.evaluation.metrics.sets.frechet import frechet_distance
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.reader import SceneReader


def test_it_is_the_formula_with_a_general_matrix_root() -> None:
    """Against eigenvalues of the plain product A B, which are those of the symmetric one."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(500, 6, generator=rng) @ torch.randn(6, 6, generator=rng)
    b = torch.randn(400, 6, generator=rng) @ torch.randn(6, 6, generator=rng) + 1.0
    left, right = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = np.sqrt(np.linalg.eigvals(left @ right).astype(complex)).real.sum()
    between = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    expected = between + np.trace(left) + np.trace(right) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-4)


def test_equal_sets_have_none_and_a_shift_its_square() -> None:
    a = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(a, a + 2.0) == pytest.approx(16.0, rel=1e-5)
    assert frechet_distance(a, 3.0 * a - 2 * a.mean(0)) == pytest.approx(4 * float(a.var(0).sum()), rel=1e-4)
    with pytest.raises(ValueError, match="needs two of each"):
        frechet_distance(a[:1], a)


def test_features_of_a_reader_tell_scenes_from_blanks() -> None:
    torch.manual_seed(0)
    reader = SceneReader().eval()
    sets = [real_pictures([make_scene(0, i) for i in range(start, start + 300)], 32) for start in (0, 300)]
    blank = torch.full_like(sets[0], 128)
    one, other, none = (reader.features(pictures) for pictures in (*sets, blank))
    assert one.shape[0] == 300
    assert frechet_distance(one, other) < 0.2 * frechet_distance(one, none)
