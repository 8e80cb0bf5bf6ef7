"""What a prefix says about the picture, read by linear probes.

A probe is multinomial logistic regression on the first k latents, flattened and standardised with the
training split's statistics; it is fitted to convergence on the training split and scored once on held-out
pictures.
Shapes: N pictures, F = k * D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seq_tokenizer.latents import prefix_lengths

_DECAY = 1e-3  # L2 on the weights (not the biases), against a cross-entropy that is a mean over pictures
_STEPS = 150  # L-BFGS iterations at most; it ends earlier when the gradient is below _FLAT
_FLAT = 5e-4


@dataclass(frozen=True)
class LinearProbe:
    """logits = standardised features @ weight + bias."""

    mean: Tensor  # (F,)
    std: Tensor  # (F,)
    weight: Tensor  # (F, C)
    bias: Tensor  # (C,)

    def logits(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, C)."""
        return (features - self.mean) / self.std @ self.weight + self.bias


def fit_probe(features: Tensor, target: Tensor, classes: int) -> LinearProbe:
    """features (N, F), target (N,) int64 -> the minimum of a convex function, so no seed is needed."""
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    x = (features - mean) / std
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=_FLAT, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = probe_loss(x, target, weight, bias)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearProbe(mean, std, weight.detach(), bias.detach())


def probe_loss(x: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convex function that `fit_probe` minimises, on standardised features x (N, F)."""
    return F.cross_entropy(x @ weight + bias, target) + 0.5 * _DECAY * weight.square().sum()


def probe_hits(train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, classes: int) -> Tensor:
    """(N,) bool: of which test pictures a probe fitted on `train` (N, F) names the class; both targets int64."""
    probe = fit_probe(train, train_target, classes)
    return probe.logits(test).argmax(1) == test_target


def probe_accuracy(train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, classes: int) -> float:
    """Share of test pictures whose class a probe fitted on `train` (N, F) names; both targets int64."""
    return float(probe_hits(train, train_target, test, test_target, classes).float().mean())


def majority_accuracy(train_target: Tensor, test_target: Tensor) -> float:
    """Chance level: always naming the class that is most frequent in training."""
    return float((test_target == torch.bincount(train_target).argmax()).float().mean())


def probe_labels(
    train: Tensor,
    train_labels: Mapping[str, Tensor],
    test: Tensor,
    test_labels: Mapping[str, Tensor],
    prefixes: Sequence[int] | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Latents (N, K, D) and labels name -> (N,) of both splits -> (label -> k -> accuracy, label ->
    chance)."""
    accuracy: dict[str, dict[str, float]] = {}
    chance: dict[str, float] = {}
    lengths = prefixes or prefix_lengths(train.shape[1])
    for name in train_labels:
        if (found := _hits_of_label(train, train_labels[name], test, test_labels[name], lengths)) is None:
            continue
        hits, chance[name] = found
        accuracy[name] = {str(k): float(own.nanmean()) for k, own in zip(lengths, hits, strict=True)}
    return accuracy, chance


def hits_by_level(
    train: Tensor,
    train_labels: Mapping[str, Tensor],
    test: Tensor,
    test_labels: Mapping[str, Tensor],
    levels: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """As `probe_labels`, by picture: level -> (P, N) share of its labels that are named, nan for a picture that has
    none of them, over P prefix lengths; and the chance of each level. Levels without a label are left out."""
    hits: dict[str, Tensor] = {}
    chance: dict[str, float] = {}
    lengths = prefix_lengths(train.shape[1])
    for level, names in levels.items():
        known = [name for name in names if name in train_labels and name in test_labels]
        labels = [_hits_of_label(train, train_labels[name], test, test_labels[name], lengths) for name in known]
        found = [label for label in labels if label is not None]
        if found:
            hits[level] = torch.stack([own for own, _ in found]).nanmean(0)
            chance[level] = sum(guessed for _, guessed in found) / len(found)
    return hits, chance


def _hits_of_label(
    train: Tensor, train_label: Tensor, test: Tensor, test_label: Tensor, lengths: Sequence[int]
) -> tuple[Tensor, float] | None:
    """(P, N) 1 where the class is named and 0 where another is, nan for a picture without one; and chance. None where
    no picture of one of the splits has a class."""
    known, held_out = train_label >= 0, test_label >= 0
    target, asked = train_label[known], test_label[held_out]
    if not len(target) or not len(asked):
        return None
    classes = int(torch.cat([target, asked]).max()) + 1
    hits = torch.full((len(lengths), len(test)), float("nan"))
    for row, k in enumerate(lengths):
        right = probe_hits(_features(train[known], k), target, _features(test[held_out], k), asked, classes)
        hits[row, held_out] = right.float()
    return hits, majority_accuracy(target, asked)


def _features(latents: Tensor, k: int) -> Tensor:
    return latents[:, :k].flatten(1).float()


def mean_over_labels(
    accuracy: Mapping[str, Mapping[str, float]], levels: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """label -> k -> accuracy, averaged over the labels of each level; levels without a known label are left
    out."""
    result = {}
    for level, names in levels.items():
        known = [accuracy[name] for name in names if name in accuracy]
        if known:
            result[level] = {k: sum(a[k] for a in known) / len(known) for k in known[0]}
    return result
