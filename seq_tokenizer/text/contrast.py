"""Image-text contrast over prefixes (ITC): a caption level against the prefix that may know it.

Of two kinds: CLIP's softmax (arXiv:2103.00020), whose target is uniform over all images with the same caption, and
SigLIP's sigmoid of each pair (arXiv:2303.15343). Each rank takes its own rows against the columns of all ranks, a few
rows at once: at most `logits_at_once` logits exist, and the backward pass makes them again. (16,384 pairs at once held
19 GiB.)

Shapes: B pairs of this rank, N pairs of all ranks, C rows of a chunk, E shared space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

AT_ONCE = 2**22  # logits; 16 MiB in fp32, and about five such tensors


class Pairs(NamedTuple):
    """Embeddings of unit norm, and which captions are equal."""

    images: Tensor  # (B, E)
    texts: Tensor  # (B, E)
    caption_ids: Tensor  # (B,) int64, -1 for "has no caption"


class CaptionLoss(nn.Module):
    """Every equal caption is a positive; who has no caption does not count."""

    def __init__(
        self,
        logit_scale_max: float,
        kind: Literal["softmax", "sigmoid"] = "softmax",
        logits_at_once: int = AT_ONCE,
    ) -> None:
        super().__init__()
        self.limit, self.logits_at_once = math.log(logit_scale_max), logits_at_once
        # SigLIP's start, at which almost every pair is taken for a stranger's, as it is.
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if kind == "sigmoid" else None

    def forward(self, mine: Pairs, logit_scale: Tensor, everyone: Pairs | None = None) -> Tensor:
        """`everyone`: the pairs of all ranks, where there are several -> this rank's summand of the loss of all pairs.

        The scale is the exponential of `logit_scale`, held at its limit. Beyond it the gradient is that of the limit
        (a clamp would have none, and the scale could never return); see `pull`.
        """
        everyone = everyone or mine
        scale = (logit_scale + (logit_scale.clamp(max=self.limit) - logit_scale).detach()).exp()
        mine, everyone = _exact(mine), _exact(everyone)
        at_once = max(1, self.logits_at_once // max(1, len(everyone.caption_ids)))
        alone = len(mine.caption_ids) == len(everyone.caption_ids) <= at_once
        count = (everyone.caption_ids >= 0).sum().clamp(min=1)
        known = (everyone.caption_ids, scale)
        if self.logit_bias is not None:
            rows = (mine.images, mine.caption_ids)
            return _in_chunks(_pair_by_pair, rows, (everyone.texts, *known, self.logit_bias), at_once) / count
        if alone:
            return _both_ways(mine, scale) / (2 * count)
        to_texts = _in_chunks(_one_way, (mine.images, mine.caption_ids), (everyone.texts, *known), at_once)
        to_images = _in_chunks(_one_way, (mine.texts, mine.caption_ids), (everyone.images, *known), at_once)
        return (to_texts + to_images) / (2 * count)

    def pull(self, logit_scale: Tensor) -> Tensor:
        """0, with a gradient that brings a scale beyond the limit back to it: else it would run away, and be far."""
        beyond = 0.5 * (logit_scale - self.limit).relu().square()
        return beyond - beyond.detach()


def _in_chunks(
    loss: Callable[..., Tensor], rows: tuple[Tensor, Tensor], columns: tuple[Tensor, ...], at_once: int
) -> Tensor:
    """The sum of `loss` over chunks of at most `at_once` rows, each computed again in the backward pass."""
    if len(rows[0]) <= at_once:
        return loss(*rows, *columns)
    sums = [
        checkpoint(loss, *part, *columns, use_reentrant=False, preserve_rng_state=False)
        for part in zip(*(whole.split(at_once) for whole in rows), strict=True)
    ]
    return torch.stack(sums).sum()


def _exact(pairs: Pairs) -> Pairs:
    """At least float32."""
    images, texts = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in pairs[:2])
    return Pairs(images, texts, pairs.caption_ids)


def _logits(rows: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """(C, E), (N, E) -> (C, N); the product itself may be of 16 bits."""
    logits = scale * rows @ columns.T
    return logits.to(torch.promote_types(logits.dtype, torch.float32))  # float16 has no -1e9


def _both_ways(pairs: Pairs, scale: Tensor) -> Tensor:
    """Both directions from one product: what fits at once, in one process."""
    ids = pairs.caption_ids
    valid = ids >= 0
    same = (ids[:, None] == ids[None]) & valid[:, None] & valid[None]
    per_image = _logits(pairs.images, pairs.texts, scale)
    logits = per_image.masked_fill(~valid[None], -1e9).masked_fill(~valid[:, None], -1e9)
    target = same / same.sum(1, keepdim=True).clamp(min=1)
    rows = -(target * logits.log_softmax(1)).sum(1) - (target * logits.T.log_softmax(1)).sum(1)
    return (rows * valid).sum()


def _one_way(rows: Tensor, ids: Tensor, columns: Tensor, all_ids: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of C rows over N columns, summed over the rows that have a caption."""
    same = (ids[:, None] == all_ids[None]) & (ids >= 0)[:, None]
    logits = _logits(rows, columns, scale).masked_fill(~(all_ids >= 0)[None], -1e9)
    target = same / same.sum(1, keepdim=True).clamp(min=1)
    return -(target * logits.log_softmax(1)).sum()


def _pair_by_pair(rows: Tensor, ids: Tensor, columns: Tensor, all_ids: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Of each pair whether it is one, summed over C rows and N columns that have a caption."""
    logits = _logits(rows, columns, scale) + bias
    sign = 2.0 * (ids[:, None] == all_ids[None]) - 1.0
    counts = (ids >= 0)[:, None] & (all_ids >= 0)[None]
    return -(F.logsigmoid(sign.to(logits) * logits) * counts).sum()
