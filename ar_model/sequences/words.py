"""How a sequence writes: the image is read once, and its keys and values serve every word.

Shapes: B pictures, K latents, W width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.sequences.cache import StaticCache
from ar_model.sequences.reading import ImageSlots
from ar_model.text.writing import WordModel


def word_model(backbone: Backbone, image: ImageSlots, end: Tensor, length: int, limit: int) -> WordModel:
    """`<bos> <boi> image <eoi>` and up to `limit` words. end (B, 1, W) is <eoi>, embedded; K = `length`."""
    x, positions, mask = image.opened(backbone)
    (rows, read), writing = x.shape[:2], backbone.writing
    cache = StaticCache(len(backbone.blocks), rows, backbone.heads, read + limit + 1, backbone.head_dim, like=x)
    backbone(x, positions, mask, cache)

    def go_on(x: Tensor) -> Tensor:
        """x (R, 1, W) -> (R, V)."""
        behind = cache.filled - read
        mask = torch.ones(len(x), 1, 1, cache.filled + 1, dtype=torch.bool, device=x.device)
        position = torch.tensor([length + 1 + behind], device=x.device)
        return writing.text_logits(writing(x, position, mask, cache)[:, -1])

    def write(parents: Tensor, words: Tensor) -> Tensor:
        cache.select(parents)
        return go_on(writing.embed_text(words[:, None]))

    return WordModel(go_on(end), write)
