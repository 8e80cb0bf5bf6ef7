"""What a set of features says, by probes that stop where held-out pictures are read best.

Beside the linear one stands a small network with one hidden layer: what that reads and the linear probe does not is
there, but not linear. Both see the same training, validation and test pictures; validation alone says when they stop.
Shapes: N pictures, F features, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqtok.evaluation.metrics.intervals import bootstrap_interval, mean_of_means
from seqtok.evaluation.metrics.state_probes import Labels, Splits, as_classes

HIDDEN = 256  # channels of the non-linear probe
_BATCH, _EPOCHS, _PATIENCE = 256, 200, 10  # pictures; at most; epochs without a lower loss on validation
_RATE, _DECAY = 3e-3, 1e-2  # of AdamW


class LabelledFeatures(NamedTuple):
    """Features (N, F) float and the class of each picture, (N,) int64."""

    features: Tensor
    target: Tensor


@dataclass(frozen=True)
class EarlyProbe:
    """The network of the epoch whose loss on validation was least, on standardised features."""

    mean: Tensor  # (F,)
    std: Tensor  # (F,)
    network: nn.Module
    epoch: int  # 0: training helped nothing

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(N, F) -> (N, C)."""
        logits: Tensor = self.network((features - self.mean) / self.std)
        return logits


def fit_early_probe(
    train: LabelledFeatures, validation: LabelledFeatures, classes: int, hidden: int | None = None, seed: int = 0
) -> EarlyProbe:
    """`hidden`: None for a linear probe, else the width of one hidden layer. A function of its inputs and the seed."""
    mean, std = train.features.mean(0), train.features.std(0).clamp(min=1e-6)
    known, held_out = (LabelledFeatures((part.features - mean) / std, part.target) for part in (train, validation))
    generator = torch.Generator().manual_seed(seed)
    network = _network(known.features.shape[1], classes, hidden, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    best, epoch, kept = _loss(network, held_out), 0, copy.deepcopy(network.state_dict())
    for number in range(1, _EPOCHS + 1):
        for rows in torch.randperm(len(known.target), generator=generator).split(_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(known.features[rows]), known.target[rows]).backward()
            optimizer.step()
        if (loss := _loss(network, held_out)) < best:
            best, epoch, kept = loss, number, copy.deepcopy(network.state_dict())
        elif number - epoch >= _PATIENCE:
            break
    network.load_state_dict(kept)
    return EarlyProbe(mean, std, network, epoch)


def probe_share(probe: EarlyProbe, test: LabelledFeatures) -> dict[str, float]:
    """-> `value`, the share of test pictures whose class is named, and its 95 % interval, `low` and `high`, over
    resampled pictures."""
    right = probe.logits(test.features).argmax(1) == test.target
    low, high = bootstrap_interval(right)
    return {"value": float(right.double().mean()), "low": low, "high": high}


def early_probes(
    features: Splits[Tensor], labels: Splits[Labels], levels: Mapping[str, Sequence[str]], seed: int = 0
) -> dict[str, Any]:
    """features (N, F) -> level -> {"linear" | "hidden": {"value", "low", "high"}}, a mean over its labels and a 95 %
    interval over the test pictures. Levels of which no label can be asked are left out."""
    found: dict[str, Any] = {}
    for level, names in levels.items():
        asked = [name for name in names if all(name in part for part in labels)]
        targets = [as_classes(Splits(*(part[name] for part in labels))) for name in asked]
        known = [target for target in targets if target is not None]
        for kind, hidden in (("linear", None), ("hidden", HIDDEN)):
            if known:
                hits = torch.stack([_hits(features, target, hidden, seed) for target in known], 1)
                low, high = bootstrap_interval(hits, mean_of_means)
                found.setdefault(level, {})[kind] = {"value": mean_of_means(hits), "low": low, "high": high}
    return found


def _hits(features: Splits[Tensor], target: Splits[Tensor], hidden: int | None, seed: int) -> Tensor:
    """(N,) of the test pictures: 1 right, 0 wrong, nan without a label."""
    known, held_out = (
        LabelledFeatures(own[classes >= 0].float(), classes[classes >= 0])
        for own, classes in ((features.fit, target.fit), (features.val, target.val))
    )
    probe = fit_early_probe(known, held_out, int(target.fit.max()) + 1, hidden, seed)
    right = (probe.logits(features.test.float()).argmax(1) == target.test).float()
    return torch.where(target.test == -1, torch.nan, right)


def _network(features: int, classes: int, hidden: int | None, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if hidden is not None:
            return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        linear = nn.Linear(features, classes)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear


@torch.no_grad()
def _loss(network: nn.Module, part: LabelledFeatures) -> float:
    return float(F.cross_entropy(network(part.features), part.target))
