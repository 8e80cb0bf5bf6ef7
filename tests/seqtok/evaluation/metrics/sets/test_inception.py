"""Inception score: as torchmetrics computes it, and what it is where it is known."""

from __future__ import annotations

import pytest
import torch

from seqtok.evaluation.metrics.sets.inception import inception_score


def test_it_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore

    generator = torch.Generator().manual_seed(0)
    features, classifier = torch.randn(200, 6, generator=generator), torch.randn(9, 6, generator=generator)
    reference = InceptionScore(feature=torch.nn.Identity(), splits=1)
    reference.update(features @ classifier.T)
    assert inception_score(features, classifier).mean == pytest.approx(float(reference.compute()[0]), rel=1e-5)


def test_one_look_is_one_and_sure_classes_are_counted() -> None:
    classes = 100 * torch.eye(8)
    alike = inception_score(torch.ones(50, 8), classes)
    assert alike.mean == pytest.approx(1.0)
    assert inception_score(torch.eye(8).repeat(5, 1), classes).mean == pytest.approx(8.0)


def test_parts_are_taken_in_order() -> None:
    features = torch.cat([torch.eye(4).repeat(5, 1), torch.eye(4)[:2].repeat(10, 1)])
    found = inception_score(features, 100 * torch.eye(4), part=20)
    assert (found.mean, found.std) == (pytest.approx(3.0), pytest.approx(1.0))
    with pytest.raises(ValueError, match="0 pictures"):
        inception_score(features[:0], torch.eye(4))
