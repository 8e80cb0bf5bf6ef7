"""A set of drawn pictures against real ones, by ImageNet's conventions: section `samples` of results.json.

Distances, shares and scores are those that ADM's evaluator names (Dhariwal and Nichol 2021, arXiv:2105.05233), where
the network is its Inception and the reference its file; sFID alone is left to it. Shapes: n pictures, F features.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqtok.evaluation.eyes.networks import FeatureNetwork
from seqtok.evaluation.metrics.sets.frechet import (
    Moments,
    frechet_between,
    frechet_infinity,
    frechet_note,
    moments,
)
from seqtok.evaluation.metrics.sets.inception import inception_score
from seqtok.evaluation.metrics.sets.manifolds import precision_recall
from seqtok_core.foundation.errors import DataError, MismatchError

NEIGHBOURS = 3  # that a ball of a manifold reaches to, as in ADM's evaluator
Pictures = Iterable[Tensor]  # parts (n, 3, H, W) uint8


@dataclass(frozen=True)
class Reference:
    """Real pictures, as a network sees them."""

    moments: Moments
    features: Tensor | None  # (n, F), where pictures were there: without, no precision and recall
    says: str


def features_of_set(
    network: FeatureNetwork, pictures: Pictures, say: Callable[[int], None] = lambda seen: None
) -> Tensor:
    """(n, F) float32. Raises DataError where there is no picture."""
    found: list[Tensor] = []
    for part in pictures:
        found.append(network.features(part).cpu())
        say(sum(map(len, found)))
    if not found:
        raise DataError("no picture to look at")
    return torch.cat(found)


def reference_moments(file: Path) -> Moments | None:
    """`mu` and `sigma` of an .npz; None where it has only pictures. Raises DataError."""
    try:
        with np.load(file) as archive:
            if not {"mu", "sigma"} <= set(archive.files):
                return None
            mean, covariance = (torch.from_numpy(np.asarray(archive[name], np.float64)) for name in ("mu", "sigma"))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: cannot be read as a reference ({error})") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(f"{file}: mu and sigma are {tuple(mean.shape)} and {tuple(covariance.shape)}")
    return Moments(mean, covariance)


def require_its_own(reference: Reference, network: FeatureNetwork, size: int) -> None:
    """Raises MismatchError where the reference was seen by another network. `size`: of pictures, in pixels."""
    blank = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    known, own = len(reference.moments.mean), network.features(blank).shape[1]
    if known != own:
        raise MismatchError(f"{reference.says} has {known} features, the network {network.name} {own}")


def judge_samples(made: Tensor, network: FeatureNetwork, reference: Reference, seed: int = 0) -> dict[str, Any]:
    """made (n, F) features of the drawn pictures -> `frechet` and what it would be of endlessly many (where the
    reference has pictures), a `note` where they are few; `precision`, `recall`; `inception_score`, where the network
    has a classifier."""
    found: dict[str, Any] = {
        "pictures": len(made),
        "network": network.name,
        "identity": network.identity,
        "reference": reference.says,
        "frechet": frechet_between(moments(made), reference.moments),
        "note": frechet_note(len(made), made.shape[1]),
    }
    if network.classifier is not None:
        found["inception_score"] = inception_score(made, network.classifier)._asdict()
    if reference.features is not None:
        found["frechet_infinity"] = frechet_infinity(made, reference.features, seed=seed).value
        found["reference_pictures"] = len(reference.features)
        found |= precision_recall(reference.features, made, NEIGHBOURS)._asdict()
    return found
