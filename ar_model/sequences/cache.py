"""Keys and values of the slots already read: in sampling in memory allotted once, in training as they came.

Shapes: R rows, H heads, C channels of a head, n new slots.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class StaticCache:
    """A KeyValueStore of fixed capacity for one sampling; it grows by what each layer appends."""

    def __init__(self, layers: int, rows: int, heads: int, capacity: int, head_dim: int, like: Tensor) -> None:
        """`like` gives dtype and device."""
        shape = (layers, rows, heads, capacity, head_dim)
        self._keys = torch.empty(shape, dtype=like.dtype, device=like.device)
        self._values = torch.empty_like(self._keys)
        self._filled = [0] * layers

    @property
    def filled(self) -> int:
        """Slots that every layer has kept."""
        return self._filled[-1]

    def rewind(self, slots: int) -> None:
        """Forget all but the first `slots`: what is read again and again stands behind what is read once."""
        self._filled = [slots] * len(self._filled)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (m,) int64, of which one may stand several times: what beam search asks for."""
        self._keys, self._values = self._keys[:, rows], self._values[:, rows]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(R, H, n, C) -> everything so far, (R, H, m, C). Raises ValueError when the capacity is used up."""
        start, stop = self._filled[layer], self._filled[layer] + keys.shape[2]
        if stop > self._keys.shape[3]:
            raise ValueError(f"cache of {self._keys.shape[3]} slots cannot hold {stop}")
        self._keys[layer, :, :, start:stop] = keys
        self._values[layer, :, :, start:stop] = values
        self._filled[layer] = stop
        return self._keys[layer, :, :, :stop], self._values[layer, :, :, :stop]


class ReadOnce:
    """A KeyValueStore for training: keeps what a first pass had for passes that go on from it."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A layer that is computed a second time, for the gradient, has been kept already."""
        self._kept.setdefault(layer, (keys, values))
        return keys, values

    def behind(self, rows: Tensor, detached: bool = False) -> Behind:
        """What stands behind these rows (R,) int64; `detached`: no gradient goes back to them."""
        kept = {layer: (k.detach(), v.detach()) for layer, (k, v) in self._kept.items()} if detached else self._kept
        return Behind(kept, rows)


class Behind:
    """A KeyValueStore of one pass behind another."""

    def __init__(self, kept: Mapping[int, tuple[Tensor, Tensor]], rows: Tensor) -> None:
        self._kept, self._rows = kept, rows

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(R, H, n, C) -> the first pass's and these, (R, H, m + n, C)."""
        before = self._kept[layer]
        return torch.cat([before[0][self._rows], keys], 2), torch.cat([before[1][self._rows], values], 2)
