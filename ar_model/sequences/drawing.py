"""One latent after the other behind whatever was read before: what a model has read, and the loop that goes on from it.

Shapes: B pictures, R rows read, n slots of the front, K latents of D channels, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.heads.base import Head
from ar_model.heads.flow import FlowHead
from ar_model.sampling import SampleConfig
from ar_model.sequences.base import Weak
from ar_model.sequences.cache import StaticCache
from ar_model.sequences.layout import attention_mask
from seqtok_core.layers.flow import guidance_at
from seqtok_core.layers.randomness import Draws


@dataclass(frozen=True)
class Front:
    """What is read before the first slot that is drawn or written."""

    x: Tensor  # (R, n, W), embedded
    positions: Tensor  # (n,) or (R, n) int64
    mask: Tensor  # (R, 1, n, n) bool
    valid: Tensor  # (R, n) bool, which slots are seen by what comes after them

    @classmethod
    def in_order(cls, x: Tensor, positions: Tensor, valid: Tensor) -> Front:
        """Each slot sees the valid ones before it."""
        return cls(x, positions, attention_mask(valid, positions), valid)


class ReadSoFar:
    """What a model has read of R rows, its keys and values, and `h` (R, W), its states of the last slot."""

    def __init__(self, backbone: Backbone, front: Front, further: int) -> None:
        """`further`: how many slots are read after it, at most."""
        self._backbone, self._valid, self._last = backbone, front.valid, front.positions[..., -1:]
        self._behind = 0  # slots read after the front
        rows, slots = front.valid.shape
        layers, capacity = len(backbone.blocks), slots + further
        self._cache = StaticCache(layers, rows, backbone.heads, capacity, backbone.head_dim, like=front.x)
        self.h = backbone(front.x, front.positions, front.mask, self._cache)[:, -1]

    @property
    def rows(self) -> int:
        return len(self._valid)

    def go_on(self, x: Tensor) -> None:
        """x (R, 1, W), the next slot."""
        self._behind += 1
        self._valid = torch.cat([self._valid, self._valid.new_ones(self.rows, 1)], 1)
        self.h = self._backbone(x, self._last + self._behind, self._valid[:, None, None], self._cache)[:, -1]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows (m,) int64, of which one may stand several times."""
        self._cache.select(rows)
        self._valid = self._valid[rows]
        self._last = self._last[rows] if self._last.ndim == 2 else self._last


def draw_behind(
    reading: ReadSoFar,
    backbone: Backbone,
    head: Head,
    draws: Draws,
    config: SampleConfig,
    length: int,
    places: range,
    guides: tuple[ReadSoFar, Weak] | None = None,
) -> Iterator[Tensor]:
    """The latents at `places` of K = `length`, each (B, D) float32, standardised.

    `reading` has R = B rows, or 2 B where guidance compares with the same model: first those with what they are told,
    then those without. `guides`: what a weaker model has read of the same, with which it compares instead.
    """
    both, part = config.guided and guides is None, getattr(config, head.kind)
    if guides is not None and isinstance(head, FlowHead) and isinstance(guides[1].head, FlowHead):
        draw = head.sampler(config.temperature, part, guides[1].head)
    else:
        draw = head.sampler(config.temperature, part)
    read = [(reading, backbone)] if guides is None else [(reading, backbone), (guides[0], guides[1].backbone)]
    for place in places:
        scale = guidance_at(place, length, config.guidance, config.schedule)
        h, free = reading.h.chunk(2) if both else (reading.h, None if guides is None else guides[0].h)
        drawn = draw(h, free, scale, draws, place)
        yield drawn
        if place + 1 < places.stop:
            for each, embeds in read:
                again = drawn.repeat(each.rows // len(drawn), 1)[:, None]
                each.go_on(embeds.embed_latents(again, place))
