"""What a set of features says, by probes that stop where held-out pictures are read best.

Beside the linear one stands a small network with one hidden layer: what that reads and the linear probe does not is
there, but not linear. Both see the same training, validation and test pictures; validation alone says when they stop.
Shapes: N pictures, F features, C classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqtok.evaluation.metrics.intervals import bootstrap_interval

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
