"""Probes of several layers: the best is chosen without the test pictures, cheats give chance, omissions are named."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seqtok.evaluation.metrics.intervals import bootstrap_interval, mean_of_means
from seqtok.evaluation.metrics.state_probes import Splits, as_classes, probe_layers, probe_sources

COUNTS = Splits(200, 100, 300)
CLASSES = 4


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(telling: int, layers: int = 3, seed: int = 0) -> tuple[Splits[Tensor], Splits[Tensor]]:
    """Features whose layer `telling` holds the class; the others are noise."""
    target = Splits(*(torch.arange(count) % CLASSES for count in COUNTS))
    features = Splits(*(noise(layers, count, 8, seed=seed + i) for i, count in enumerate(COUNTS)))
    for part, own in zip(features, target, strict=True):
        part[telling] += 4 * torch.eye(CLASSES, 8)[own]
    return features, target


def test_the_layer_that_tells_is_found_and_scored_on_test() -> None:
    found = probe_layers(*planted(telling=1))
    assert found.layer == 1
    assert found.hits.mean() > 0.95
    assert max(found.by_layer[0], found.by_layer[2]) < 0.45 < 0.95 < found.by_layer[1]


def test_test_pictures_have_no_say_in_the_layer() -> None:
    """Layer 0 tells on fit and test but not on val; layer 2 on fit and val but not on test."""
    features, target = planted(telling=0)
    other = planted(telling=2, seed=50)[0]
    features.val[0] = noise(COUNTS.val, 8, seed=9)
    for part, told in zip(features[:2], other[:2], strict=True):
        part[2] = told[2]
    found = probe_layers(features, target)
    assert found.layer == 2
    assert found.hits.mean() < 0.4


def test_shuffled_labels_give_chance() -> None:
    features, target = planted(telling=1)
    shuffled = Splits(*(own[torch.randperm(len(own), generator=torch.Generator().manual_seed(3))] for own in target))
    found = probe_sources({"states": features}, Splits(*({"kind": own} for own in shuffled)), None)
    row = found["labels"]["kind"]
    assert row["chance"] == pytest.approx(0.25, abs=0.02)
    assert row["states"]["low"] < row["chance"] < row["states"]["high"]
    told = probe_sources({"states": features}, Splits(*({"kind": own} for own in target)), None)["labels"]["kind"]
    assert told["states"]["low"] > 0.9
    assert told["states"]["layer"] == 2, "counted from 1"


def test_a_level_is_the_mean_of_its_labels_with_one_interval() -> None:
    features, target = planted(telling=1)
    labels = Splits(*({"kind": own, "half": own // 2, "all": torch.zeros_like(own)} for own in target))
    found = probe_sources({"states": features}, labels, {"both": ("kind", "half", "all"), "none": ("all",)})
    row, alone = found["levels"]["both"]["states"], found["labels"]
    assert list(found["levels"]) == ["both"]
    assert row["value"] == pytest.approx((alone["kind"]["states"]["value"] + alone["half"]["states"]["value"]) / 2)
    assert row["low"] <= row["value"] <= row["high"]
    assert list(found["by_layer"]["states"]["both"]) == ["1", "2", "3"]
    assert list(found["left_out"]) == ["all"]


def test_a_label_that_a_split_lacks_is_named() -> None:
    features, target = planted(telling=1)
    labels = Splits({"kind": target.fit, "fit only": target.fit}, {"kind": target.val}, {"kind": target.test})
    assert list(probe_sources({"states": features}, labels, None)["left_out"]) == ["fit only"]


def test_classes_are_those_of_the_fit_and_a_new_one_cannot_be_right() -> None:
    labels = Splits(torch.tensor([70, -1, 5, 70]), torch.tensor([5, 70]), torch.tensor([5, 6, 700, -1]))
    found = as_classes(labels)
    assert found is not None
    assert [part.tolist() for part in found] == [[1, -1, 0, 1], [0, 1], [0, -2, -2, -1]]
    assert as_classes(Splits(labels.fit[:2], labels.val, labels.test)) is None
    assert as_classes(Splits(labels.fit, labels.val, labels.test[3:])) is None
    features = Splits(*(torch.zeros(1, len(part), 2) for part in labels))
    hits = probe_layers(features, found).hits
    assert hits[1:3].tolist() == [0.0, 0.0]
    assert math.isnan(hits[3])


def test_the_interval_is_that_of_a_share() -> None:
    """Near 1.96 standard errors on both sides, narrower for more pictures, the same every time."""
    hits = (torch.arange(400) % 4 == 0).float()[:, None]
    low, high = bootstrap_interval(hits, mean_of_means)
    assert (low, high) == bootstrap_interval(hits, mean_of_means)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 * 0.75 / 400), rel=0.1)
    assert bootstrap_interval(hits[:40], mean_of_means)[0] < low
    unknown = torch.cat([hits, torch.full_like(hits, torch.nan)], 1)
    unknown[:2, 1] = 1.0
    assert mean_of_means(unknown) == pytest.approx(0.625)
    assert bootstrap_interval(torch.ones(5, 1), mean_of_means) == (1.0, 1.0)
