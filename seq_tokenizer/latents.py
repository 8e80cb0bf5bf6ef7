"""LatentSpec: what a latent sequence is, carried by the tokenizer, every latent folder and every sequence model.

Shapes: K latents, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError


@dataclass(frozen=True, eq=False)
class LatentSpec:
    """Length, channels, statistics and origin of latents. `tokenizer_id` is a hash of weights and config."""

    length: int  # K
    dim: int  # D
    mean: Tensor  # (K, D) float32, over the training images
    std: Tensor  # (K, D) float32, positive
    tokenizer_id: str
    groups: tuple[int, ...] = ()  # sizes of jointly predicted groups (scales); empty: one token at a time
    codebook_size: int | None = None  # V, entries, for discrete bottlenecks
    codes_per_token: int = 1  # Q: codes of an image are (K,), with Q > 1 (K, Q)

    def __post_init__(self) -> None:
        if self.mean.shape != (self.length, self.dim) or self.std.shape != (self.length, self.dim):
            raise ValueError(f"mean and std must be ({self.length}, {self.dim})")
        if not (torch.isfinite(self.mean).all() and torch.isfinite(self.std).all() and (self.std > 0).all()):
            raise DataError("latent statistics hold NaN, infinite or non-positive values")
        if self.groups and sum(self.groups) != self.length:
            raise ValueError(f"groups {self.groups} do not add up to {self.length}")
        if self.codes_per_token < 1 or (self.codebook_size is not None and self.codebook_size < 1):
            raise ValueError(f"{self.codes_per_token} codes per token of {self.codebook_size} entries")

    def normalise(self, raw: Tensor) -> Tensor:
        """(B, k, D) as the tokenizer gave them -> zero mean, unit variance per position and channel."""
        k = raw.shape[1]
        return (raw - self.mean[:k].to(raw)) / self.std[:k].to(raw)

    def denormalise(self, z: Tensor) -> Tensor:
        """The inverse of `normalise`, for any prefix."""
        k = z.shape[1]
        return z * self.std[:k].to(z) + self.mean[:k].to(z)

    def require_latents(self, latents: Tensor, least: int, done: str) -> None:
        """Raise ConfigError unless these are the first k latents of pictures, `least` <= k <= K, which are `done`."""
        if latents.ndim != 3 or latents.shape[2] != self.dim or not least <= latents.shape[1] <= self.length:
            allowed = f"k = {self.length}" if least == self.length else f"{least} <= k <= {self.length}"
            raise ConfigError(f"latents of shape {tuple(latents.shape)}: (B, k, {self.dim}) with {allowed} are {done}")

    def require_same(self, other: LatentSpec, here: str, there: str) -> None:
        """Raise MismatchError, naming both sides, unless `other` comes from the same tokenizer."""
        if (self.length, self.dim) != (other.length, other.dim):
            raise MismatchError(
                f"{there} has {other.length} x {other.dim} latents, {here} has {self.length} x {self.dim}; "
                "use the tokenizer that this model was trained with"
            )
        if self.tokenizer_id != other.tokenizer_id:
            raise MismatchError(
                f"{there} comes from tokenizer {other.tokenizer_id}, {here} from tokenizer {self.tokenizer_id}; "
                "export the images again with the right tokenizer"
            )
        if not (torch.equal(self.mean, other.mean) and torch.equal(self.std, other.std)):
            raise MismatchError(
                f"{there} and {here} name the same tokenizer {self.tokenizer_id}, but their latent statistics differ: "
                "one of them was changed afterwards; export the images again"
            )

    def to_json(self) -> dict[str, Any]:
        discrete = {} if self.codebook_size is None else {"codes_per_token": self.codes_per_token}
        return {
            "length": self.length,
            "dim": self.dim,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "tokenizer_id": self.tokenizer_id,
            "groups": list(self.groups),
            "codebook_size": self.codebook_size,
            **discrete,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "latent spec") -> LatentSpec:
        """Raises DataError naming `where` when a field is missing or malformed."""
        try:
            return cls(
                length=int(value["length"]),
                dim=int(value["dim"]),
                mean=torch.tensor(value["mean"], dtype=torch.float32),
                std=torch.tensor(value["std"], dtype=torch.float32),
                tokenizer_id=str(value["tokenizer_id"]),
                groups=tuple(int(g) for g in value.get("groups", ())),
                codebook_size=value.get("codebook_size"),
                codes_per_token=int(value.get("codes_per_token", 1)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: not a latent spec ({error})") from None


def prefix_lengths(length: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `length` itself."""
    if length < 1:
        raise ValueError(f"a sequence of {length} tokens has no prefix")
    return (*(2**i for i in range((length - 1).bit_length())), length)
