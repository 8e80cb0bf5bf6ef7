"""Linear probes: the fit is the minimum, the chance level is the majority, levels average their labels."""

from __future__ import annotations

import pytest
import torch

from seqtok.evaluation.metrics.semantics import fit_probe, majority_accuracy, mean_over_labels, probe_labels, probe_loss


def clusters(count: int, classes: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(count) % classes
    centers = torch.eye(classes, 6) * 3
    return centers[target] + spread * torch.randn(count, 6, generator=generator), target


def test_the_fit_is_the_minimum_of_its_convex_loss() -> None:
    features, target = clusters(300, 3, 2.0, seed=0)
    probe = fit_probe(features, target, 3)
    x = (features - probe.mean) / probe.std
    weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
    probe_loss(x, target, weight, bias).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 1e-3
    assert float(bias.grad.abs().max()) < 1e-3


def test_shift_and_scale_of_features_do_not_matter() -> None:
    features, target = clusters(200, 3, 1.0, seed=0)
    stretch = torch.tensor([1.0, 100.0, 0.01, 3.0, 1.0, 7.0])
    plain = fit_probe(features, target, 3).logits(features)
    moved = features * stretch + 5
    torch.testing.assert_close(fit_probe(moved, target, 3).logits(moved), plain, rtol=1e-2, atol=1e-2)


def test_a_label_is_found_from_the_token_that_holds_it_on() -> None:
    """Token 2 carries the class; token 1 is noise."""
    parts = []
    for seed in (0, 1):
        useful, target = clusters(400, 4, 0.5, seed)
        noise = torch.randn(useful.shape, generator=torch.Generator().manual_seed(seed + 9))
        parts.append((torch.stack([noise, useful], 1), {"kind": target}))
    (train, train_labels), (test, test_labels) = parts
    accuracy, chance = probe_labels(train, train_labels, test, test_labels)
    assert chance["kind"] == 0.25
    assert accuracy["kind"]["1"] < 0.4
    assert accuracy["kind"]["2"] > 0.97


def test_pictures_without_a_label_are_left_out() -> None:
    features, target = clusters(300, 3, 0.1, seed=0)
    hidden = torch.where(torch.arange(300) % 5 == 0, -1, target)
    z = features[:, None]
    accuracy, chance = probe_labels(z, {"kind": hidden}, z, {"kind": hidden})
    assert accuracy["kind"]["1"] == 1.0
    assert chance["kind"] == pytest.approx(1 / 3, abs=0.01)


def test_chance_is_the_training_majority_scored_on_the_test_split() -> None:
    assert majority_accuracy(torch.tensor([0, 0, 1]), torch.tensor([1, 1, 1, 0])) == 0.25


def test_a_level_is_the_mean_of_its_labels() -> None:
    accuracy = {"a": {"1": 0.5, "2": 0.7}, "b": {"1": 0.1, "2": 0.3}}
    levels = {"both": ("a", "b"), "one": ("a", "missing"), "none": ("missing",)}
    averaged = mean_over_labels(accuracy, levels)
    assert averaged["one"] == accuracy["a"]
    assert averaged["both"] == {"1": pytest.approx(0.3), "2": pytest.approx(0.5)}
    assert "none" not in averaged
