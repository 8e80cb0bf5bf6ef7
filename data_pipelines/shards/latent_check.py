"""Are latents what their tokenizer says they are? Finite, near its statistics, not drifted as a whole.

z is a latent value in standard deviations of the tokenizer's spec: (value - mean) / std, per position and channel.
Shapes: N pictures, K latents of D channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtok_core.foundation.errors import DataError

LIMIT = 20.0  # |z| beyond this is an outlier: a Gaussian reaches 6 once in 10^9
MEAN_SHIFT = 1.0  # a channel's mean over the whole export, in standard deviations, beyond which it has drifted
STD_RATIO = 2.0  # a channel's deviation over the spec's, or its inverse, beyond which it has drifted
ENOUGH = 256  # pictures below which means and deviations are measured but say nothing
_NAMED = 10  # outliers that are named


@dataclass(frozen=True)
class Statistics:
    """mean and std (K, D) float64 of a tokenizer's latents over its training images."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], where: str = "latent spec") -> Statistics:
        """From the JSON of a LatentSpec. Raises DataError when it has none that can be used."""
        try:
            mean, std = np.asarray(spec["mean"], np.float64), np.asarray(spec["std"], np.float64)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: no mean and std of the latents") from None
        if mean.shape != std.shape or mean.ndim != 2 or not (np.isfinite(mean).all() and (std > 0).all()):
            raise DataError(f"{where}: mean and std of the latents are damaged")
        return cls(mean, std)

    def standardised(self, latents: NDArray[Any]) -> NDArray[np.float64]:
        """(N, K, D) -> z, same shape."""
        return (latents.astype(np.float64) - self.mean) / self.std


def measure(latents: NDArray[Any], keys: Sequence[str], statistics: Statistics) -> dict[str, Any]:
    """Facts about the (N, K, D) latents of one shard, as JSON. Raises DataError naming a key that is not finite."""
    if not len(latents):
        return {"pictures": 0, "largest": 0.0, "largest_key": "", "outliers": 0, "outlier_keys": []}
    finite = np.isfinite(latents).reshape(len(latents), -1).all(axis=1)
    if not finite.all():
        raise DataError(f"{keys[int(np.argmin(finite))]}: latents are not finite numbers")
    z = statistics.standardised(latents)
    worst = np.abs(z).reshape(len(z), -1).max(axis=1)  # (N,)
    outliers = np.flatnonzero(worst > LIMIT)
    return {
        "pictures": len(z),
        "mean": _rounded(z.mean(axis=0)),
        "square": _rounded(np.square(z).mean(axis=0)),
        "largest": float(f"{worst.max():.6g}"),
        "largest_key": keys[int(worst.argmax())],
        "outliers": len(outliers),
        "outlier_keys": [keys[int(row)] for row in outliers[:_NAMED]],
    }


def refuse_outliers(facts: Mapping[str, Any]) -> None:
    """Raises DataError naming the worst picture of a shard that holds outliers."""
    if facts["outliers"]:
        raise DataError(
            f"{facts['largest_key']}: a latent lies {facts['largest']:.1f} standard deviations from the tokenizer's "
            f"mean (limit {LIMIT:g}; {facts['outliers']} such pictures in this shard); look at the picture, or "
            "write it all the same with `on_outlier=warn`"
        )


def summarise_checks(shards: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the shards of an export say together: kept in its dataset.json under "check"."""
    kept = [facts for facts in shards if facts["pictures"]]
    count = sum(facts["pictures"] for facts in kept)
    if not count:
        return {"pictures": 0}
    weights = [facts["pictures"] / count for facts in kept]
    mean = sum(w * np.asarray(facts["mean"]) for w, facts in zip(weights, kept, strict=True))
    square = sum(w * np.asarray(facts["square"]) for w, facts in zip(weights, kept, strict=True))
    std = np.sqrt(np.clip(square - np.square(mean), 0.0, None))
    worst = max(kept, key=lambda facts: facts["largest"])
    shift, narrow, wide = float(np.abs(mean).max()), float(std.min()), float(std.max())
    drifted = count >= ENOUGH and (shift > MEAN_SHIFT or wide > STD_RATIO or narrow < 1 / STD_RATIO)
    return {
        "pictures": count,
        "largest_z": worst["largest"],
        "largest_z_key": worst["largest_key"],
        "outliers": sum(facts["outliers"] for facts in kept),
        "outlier_keys": [key for facts in kept for key in facts["outlier_keys"]][:_NAMED],
        "outlier_limit": LIMIT,
        "mean_shift": round(shift, 4),  # of the channel that moved most
        "std_ratio": [round(narrow, 4), round(wide, 4)],  # of the narrowest and the widest channel
        "drifted": bool(drifted),
    }


def warnings_of(check: Mapping[str, Any]) -> list[str]:
    """What a user should read about an export."""
    found = []
    if check.get("outliers"):
        found.append(
            f"{check['outliers']} pictures have a latent beyond {check['outlier_limit']:g} standard deviations, "
            f"the worst {check['largest_z_key']} ({check['largest_z']:.1f})"
        )
    if check.get("drifted"):
        low, high = check["std_ratio"]
        found.append(
            f"these latents are not distributed as those of the tokenizer's training: a channel's mean is "
            f"{check['mean_shift']:.2f} standard deviations off, deviations are {low:.2f} to {high:.2f} times as wide; "
            "are these pictures of the kind that it was trained on?"
        )
    return found


def _rounded(values: NDArray[np.float64]) -> list[list[float]]:
    return [[float(f"{value:.6g}") for value in row] for row in values]
