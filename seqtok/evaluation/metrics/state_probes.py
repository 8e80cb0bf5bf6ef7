"""What features of several layers say about pictures, by linear probes: each is fitted on one part of the pictures, the
layer is chosen on another, and the test pictures are asked once.

Shapes: N pictures, L layers of F features, J labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from seqtok.evaluation.metrics.intervals import bootstrap_interval, mean_of_means
from seqtok.evaluation.metrics.semantics import fit_probe, majority_accuracy

T = TypeVar("T")
Labels = Mapping[str, Tensor]  # name -> (N,) int64, below 0 where a picture has none


class Splits(NamedTuple, Generic[T]):
    """One thing of each part of the pictures."""

    fit: T  # probes are fitted on it
    val: T  # layers are chosen on it
    test: T  # is asked once


@dataclass(frozen=True)
class LayerProbe:
    """The probe of the layer that is best on val."""

    hits: Tensor  # (N,) float32 of the test pictures: 1 right, 0 wrong, nan without a label
    layer: int  # from 0
    by_layer: list[float]  # L, accuracies on val


def probe_layers(features: Splits[Tensor], target: Splits[Tensor]) -> LayerProbe:
    """features (L, N, F) and target (N,), classes from 0, -1 without a label and -2 of a class that `fit` never had."""
    classes, known = int(target.fit.max()) + 1, target.fit >= 0
    best, by_layer = (-1.0, 0, torch.zeros(0)), list[float]()
    for layer, layer_features in enumerate(features.fit.float()):
        probe = fit_probe(layer_features[known], target.fit[known], classes)
        by_layer.append(float(_hits(probe.logits(features.val[layer].float()), target.val).nanmean()))
        if by_layer[-1] > best[0]:
            best = by_layer[-1], layer, probe.logits(features.test[layer].float())
    return LayerProbe(_hits(best[2], target.test), best[1], by_layer)


def _hits(logits: Tensor, target: Tensor) -> Tensor:
    return torch.where(target == -1, torch.nan, (logits.argmax(1) == target).float())


def as_classes(labels: Splits[Tensor]) -> Splits[Tensor] | None:
    """Numbers of a label -> classes from 0 on as `probe_layers` takes them; None where there is nothing to tell apart
    or nobody to ask."""
    known = labels.fit[labels.fit >= 0].unique()
    if len(known) < 2 or any((part >= 0).sum() == 0 for part in labels):
        return None

    def numbered(values: Tensor) -> Tensor:
        place = torch.searchsorted(known, values).clamp(max=len(known) - 1)
        return torch.where(values < 0, -1, torch.where(known[place] == values, place, -2))

    return Splits(*(numbered(part) for part in labels))


def probe_sources(
    sources: Mapping[str, Splits[Tensor]], labels: Splits[Labels], levels: Mapping[str, Sequence[str]] | None
) -> dict[str, Any]:
    """Source -> its features (L, N, F) -> {"labels" | "levels": {name: {"chance": share, source: {"value", "low",
    "high"}}}, "by_layer": {source: {level: {layer: share of val}}}, "left_out": {label: why}}.

    A label also says which "layer", from 1, is best. A level is the mean over its labels; without `levels` every label
    is one.
    """
    targets: dict[str, Splits[Tensor]] = {}
    left_out: dict[str, str] = {}
    for name in sorted({name for part in labels for name in part}):
        found = as_classes(Splits(*(part[name] for part in labels))) if all(name in part for part in labels) else None
        if found is None:
            left_out[name] = "less than two classes to fit, or no picture with a class to judge"
        else:
            targets[name] = found
    probes = {
        source: {name: probe_layers(features, target) for name, target in targets.items()}
        for source, features in sources.items()
    }
    chance = {name: majority_accuracy(t.fit[t.fit >= 0], t.test[t.test != -1]) for name, t in targets.items()}
    by_label = {name: (name,) for name in targets}
    of_levels = {level: [n for n in names if n in targets] for level, names in (levels or by_label).items()}
    by_level = {level: names for level, names in of_levels.items() if names}
    tables: dict[str, Any] = {"labels": _table(probes, by_label, chance), "levels": _table(probes, by_level, chance)}
    for source, own in probes.items():
        for name, probe in own.items():
            tables["labels"][name][source]["layer"] = probe.layer + 1
    by_layer = {
        source: {level: _mean_by_layer([own[name] for name in names]) for level, names in by_level.items()}
        for source, own in probes.items()
    }
    return {**tables, "by_layer": by_layer, "left_out": left_out}


def _table(
    probes: Mapping[str, Mapping[str, LayerProbe]], groups: Mapping[str, Sequence[str]], chance: Mapping[str, float]
) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for group, names in groups.items():
        table[group] = {"chance": sum(chance[name] for name in names) / len(names)}
        for source, own in probes.items():
            hits = torch.stack([own[name].hits for name in names], 1)
            low, high = bootstrap_interval(hits, mean_of_means)
            table[group][source] = {"value": mean_of_means(hits), "low": low, "high": high}
    return table


def _mean_by_layer(probes: Sequence[LayerProbe]) -> dict[str, float]:
    columns = zip(*(probe.by_layer for probe in probes), strict=True)
    return {str(layer): sum(column) / len(column) for layer, column in enumerate(columns, start=1)}
