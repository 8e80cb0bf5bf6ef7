"""Probes that stop early: linear where it is linear, more where it is not, chance where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqtok.evaluation.metrics.intervals import bootstrap_interval
from seqtok.evaluation.metrics.probes import HIDDEN, LabelledFeatures, early_probes, fit_early_probe, probe_share
from seqtok.evaluation.metrics.semantics import fit_probe
from seqtok.evaluation.metrics.state_probes import Splits

Parts = tuple[LabelledFeatures, LabelledFeatures, LabelledFeatures]


def parts(kind: str, count: int = 600) -> Parts:
    """Train, validation and test: classes in clusters, in an exclusive or of two signs, or unrelated to features."""
    made = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(count, 6, generator=generator)
        target = torch.randint(3 if kind == "clusters" else 2, (count,), generator=generator)
        if kind == "clusters":
            features = features + 2.5 * torch.eye(3, 6)[target]
        if kind == "exclusive":
            target = ((features[:, 0] > 0) != (features[:, 1] > 0)).long()
        made.append(LabelledFeatures(features, target))
    train, validation, test = made
    return train, validation, test


def test_where_classes_are_linear_both_are_as_good_as_the_fit_to_convergence() -> None:
    train, validation, test = parts("clusters")
    whole = (fit_probe(*train, 3).logits(test.features).argmax(1) == test.target).double().mean()
    for hidden in (None, HIDDEN):
        probe = fit_early_probe(train, validation, 3, hidden)
        assert probe_share(probe, test)["value"] == pytest.approx(float(whole), abs=0.02), hidden


def test_what_is_there_but_not_linear_is_found_by_the_hidden_layer_alone() -> None:
    train, validation, test = parts("exclusive")
    linear = probe_share(fit_early_probe(train, validation, 2), test)
    hidden = probe_share(fit_early_probe(train, validation, 2, HIDDEN), test)
    assert linear["value"] < 0.6
    assert hidden["value"] > 0.9
    assert linear["high"] < hidden["low"]


@pytest.mark.parametrize("hidden", [None, HIDDEN])
def test_where_there_is_nothing_it_stops_early_and_finds_chance(hidden: int | None) -> None:
    train, validation, test = parts("nothing")
    probe = fit_early_probe(train, validation, 2, hidden)
    assert probe.epoch < 20
    found = probe_share(probe, test)
    assert found["low"] - 0.02 < 0.5 < found["high"] + 0.02


def test_the_kept_epoch_is_the_one_that_validation_likes_best() -> None:
    """Validation of other classes than those of training: what is learned helps nothing, and nothing is kept."""
    train, validation, _ = parts("clusters")
    probe = fit_early_probe(train, LabelledFeatures(validation.features, (validation.target + 1) % 3), 3)
    assert probe.epoch == 0
    assert torch.equal(probe.logits(train.features), torch.zeros(600, 3))


def test_seed_shift_and_scale() -> None:
    train, validation, test = parts("clusters", 100)
    before = torch.random.get_rng_state()
    first, again, other = (fit_early_probe(train, validation, 3, 16, seed).logits(test.features) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    stretch = torch.tensor([1.0, 100.0, 0.01, 3.0, 1.0, 7.0])
    moved = [LabelledFeatures(part.features * stretch + 5, part.target) for part in (train, validation, test)]
    probe = fit_early_probe(moved[0], moved[1], 3, 16)
    torch.testing.assert_close(probe.logits(moved[2].features), first, rtol=2e-2, atol=2e-2)


def test_an_interval_is_that_of_the_normal_law_of_means() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap_interval(values, resamples=4000)
    half = 1.96 * float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - half, abs=0.15 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.15 * half)


def test_an_interval_is_the_quantiles_of_resampled_statistics() -> None:
    """Against the definition in numpy, on the same draws; medians, which no formula of means gives."""
    values = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(7)
    drawn = [values.numpy()[torch.randint(30, (30,), generator=generator).numpy()] for _ in range(200)]
    expected = np.quantile([np.sort(rows[:, 0])[14] for rows in drawn], [0.05, 0.95])
    median = lambda rows: float(rows[:, 0].median())  # noqa: E731
    found = bootstrap_interval(values, median, level=0.9, resamples=200, seed=7)
    assert found == pytest.approx(tuple(expected))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = (torch.rand(100, 60, generator=generator) < 0.3).double()
    intervals = [bootstrap_interval(sample, resamples=200) for sample in samples]
    covered = np.mean([low <= 0.3 <= high for low, high in intervals])
    assert 0.86 < covered < 0.99


def test_equal_rows_have_a_point_and_no_rows_none() -> None:
    assert bootstrap_interval(torch.ones(5)) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(torch.ones(0))


def test_a_level_is_the_mean_of_its_labels_and_pictures_without_one_are_not_asked() -> None:
    own, other = parts("exclusive"), parts("nothing")
    features = Splits(*(part.features for part in own))
    bare = torch.arange(len(own[2].target)) % 2 == 0
    asked = own[2].target.masked_fill(bare, -1)
    signs = [own[0].target, own[1].target, asked]
    noise = [part.target for part in other]
    labels = Splits(*({"sign": a, "noise": b} for a, b in zip(signs, noise, strict=True)))
    levels = {"sign": ["sign"], "noise": ["noise"], "both": ["sign", "noise", "unheard of"], "none": ["unheard of"]}
    found = early_probes(features, labels, levels)
    assert set(found) == {"sign", "noise", "both"}
    assert found["sign"]["linear"]["value"] < 0.6 < 0.9 < found["sign"]["hidden"]["value"]
    for kind in ("linear", "hidden"):
        mean = (found["sign"][kind]["value"] + found["noise"][kind]["value"]) / 2
        assert found["both"][kind]["value"] == pytest.approx(mean, abs=1e-6)
        assert found["sign"][kind]["low"] <= found["sign"][kind]["value"] <= found["sign"][kind]["high"]
