"""What makes the sequence ordered: prefixes of random length, and the shortest prefix that owes each caption.

Nested dropout: Rippel, Gelbart, Adams 2014, arXiv:1402.0915. Shapes: B images, K latents, W width, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqtok_core.foundation.errors import ConfigError


def draw_prefix(u: Tensor, longest: int, shortest: int | Tensor = 1) -> Tensor:
    """u (B,) uniform in (0, 1) -> (B,) int64 in [shortest, longest], P(k) = log((k+1)/k) up to a constant.

    Every power-of-two range of lengths is about equally likely, and length `shortest` the likeliest of all.
    """
    low = torch.as_tensor(shortest, device=u.device, dtype=torch.float32)
    k = torch.exp(u * torch.log((longest + 1) / low)) * low
    return k.floor().long().clamp(torch.as_tensor(shortest, device=u.device), torch.as_tensor(longest, device=u.device))


def keep_prefix(x: Tensor, k: Tensor | int, absent: Tensor) -> Tensor:
    """x (B, K, W), 0 <= k <= K per image or for all, absent (W,) -> (B, K, W): tokens from k on are absent."""
    lengths = torch.as_tensor(k, device=x.device).reshape(-1, 1)
    kept = torch.arange(x.shape[1], device=x.device) < lengths
    return torch.where(kept[..., None], x, absent.to(x.dtype))


def whole_sequence(x: Tensor, k: Tensor | int, absent: Tensor, positions: Tensor) -> Tensor:
    """x (B, n, W) with n <= K, absent (W,), positions (K, W) -> (B, K, W), whose tokens from k on are absent."""
    x = keep_prefix(x, k, absent)
    missing = len(positions) - x.shape[1]
    if missing > 0:
        x = torch.cat([x, absent.expand(len(x), missing, -1).to(x.dtype)], 1)
    return x + positions


def level_starts(length: int, levels: int) -> tuple[int, ...]:
    """The shortest prefix that must know each caption level, coarse to fine; geometric, the first is 1.

    Level l is demanded of every prefix longer than K^(l / L): early tokens are left free to be coarse. Where there are
    few tokens, the whole sequence must know what is left: of one token every level is demanded.
    """
    starts = (1 if level == 0 else _ceil_root(length**level, levels) + 1 for level in range(levels))
    return tuple(min(start, length) for start in starts)


def owed_starts(given: Sequence[int] | None, length: int, levels: int) -> tuple[int, ...]:
    """`given`, or else `level_starts`. Raises ConfigError where they do not fit the pyramid."""
    starts = tuple(given) if given else level_starts(length, levels)
    if len(starts) != levels or max(starts) > length:
        raise ConfigError(
            f"`level_starts` {list(starts)}: one length of at most {length} tokens is needed for each of the "
            f"{levels} caption levels"
        )
    return starts


def draw_owed(u: Tensor, length: int, starts: Sequence[int]) -> Tensor:
    """u (B, L) -> (B, L) int64: for every level a prefix that owes it."""
    return torch.stack([draw_prefix(u[:, level], length, start) for level, start in enumerate(starts)], 1)


def _ceil_root(value: int, degree: int) -> int:
    """The least n with n^degree >= value; in whole numbers, since 32^(4/5) is above 16 in floating point."""
    guess = round(value ** (1 / degree))
    return next(n for n in range(max(guess - 1, 1), guess + 2) if n**degree >= value)
