"""Random numbers as a pure function of (seed, stream, epoch, sample, position): no generator, no state.

What is random per sample (prefix length, noise, crop) must not change with the number of ranks, workers or
resumes, so it is hashed from the sample's own coordinates. The hash is the finaliser of SplitMix64 (Steele,
Lea, Flood 2014, "Fast splittable pseudorandom number generators"), applied to each coordinate in turn.
Draws is the one door for models, on any device; what is drawn while data are read (orders, crops) has no torch in it
and takes Philox from foundation/random_bits.py, by the same coordinates.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's `>>` on int64 carries the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Its lowest 64 bits as int64 reads them: any seed will do."""
    return (value + 2**63) % 2**64 - 2**63


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1  # int64 products wrap, which is what the hash wants
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _bits(seed: int, stream: str, epoch: Tensor, index: Tensor, count: int) -> Tensor:
    """epoch (B,), index (B,) int64 -> (B, count) int64, all 64 bits random.

    `stream` names the use ("prefix", "noise"): uses with different names are independent.
    """
    key = torch.full_like(index, _signed(seed * 1_000_003 + zlib.crc32(stream.encode())))
    state = _mix(_mix(_mix(key + _GOLDEN) + epoch * _GOLDEN) + index * _GOLDEN)
    place = torch.arange(1, count + 1, device=index.device, dtype=torch.int64)
    return _mix(state[:, None] + place * _GOLDEN)


def _uniform(seed: int, stream: str, epoch: Tensor, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """(B, *shape) float32, uniform in the open interval (0, 1)."""
    raw = _bits(seed, stream, epoch, index, math.prod(shape))
    fraction = (_shift_right(raw, 41).to(torch.float32) + 0.5) * 2.0**-23
    return fraction.reshape(index.shape[0], *shape)


def _normal(seed: int, stream: str, epoch: Tensor, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """(B, *shape) float32, standard normal by Box and Muller."""
    radius = (-2.0 * _uniform(seed, stream + "/radius", epoch, index, shape).log()).sqrt()
    return radius * (2.0 * math.pi * _uniform(seed, stream + "/angle", epoch, index, shape)).cos()


@dataclass(frozen=True)
class Draws:
    """Numbers named by a stream; `epoch` and `index` (B,) int64 say whose they are."""

    seed: int
    epoch: Tensor
    index: Tensor

    @classmethod
    def alike(cls, seed: int, rows: int, device: torch.device | None = None) -> Self:
        """The same numbers for every one of `rows`, so that none depends on its place in a batch."""
        zeros = torch.zeros(rows, dtype=torch.int64, device=device)
        return cls(seed, zeros, zeros)

    def uniform(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32 in (0, 1)."""
        return _uniform(self.seed, stream, self.epoch, self.index, shape)

    def normal(self, stream: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(B, *shape) float32, standard normal."""
        return _normal(self.seed, stream, self.epoch, self.index, shape)
