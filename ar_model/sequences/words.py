"""How a sequence writes: the image is read once, and its keys and values serve every word.

Shapes: B pictures, k <= K latents, W width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.sequences.cache import StaticCache
from ar_model.sequences.layout import attention_mask, slot_positions
from ar_model.text.writing import WordModel
from data_pipelines.captions.tokenizer import BOI, BOS


def word_model(
    backbone: Backbone, image: Tensor, end: Tensor, positions: Tensor, order: Tensor, length: int, limit: int
) -> WordModel:
    """`<bos> <boi> image <eoi>` and up to `limit` words. image (B, n, W) and end (B, 1, W), which is <eoi>, are
    embedded. The image's slots stand at positions (n,) of 1 to K = `length` and see those whose order (n,), at least 1,
    is not above their own.
    """
    rows = len(image)
    begin = backbone.embed_text(torch.tensor([[BOS, BOI]], device=image.device).expand(rows, -1))
    x = torch.cat([begin, image], 1)
    read, writing = x.shape[1], backbone.writing
    cache = StaticCache(len(backbone.blocks), rows, backbone.heads, read + limit + 1, backbone.head_dim, like=x)
    front = slot_positions(2, 2, image.device)
    mask = attention_mask(x.new_ones(rows, read, dtype=torch.bool), torch.cat([front, order]))
    backbone(x, torch.cat([front, positions]), mask, cache)

    def go_on(x: Tensor) -> Tensor:
        """x (R, 1, W) -> (R, V)."""
        behind = cache.filled - read
        mask = torch.ones(len(x), 1, 1, cache.filled + 1, dtype=torch.bool, device=image.device)
        position = torch.tensor([length + 1 + behind], device=image.device)
        return writing.text_logits(writing(x, position, mask, cache)[:, -1])

    def write(parents: Tensor, words: Tensor) -> Tensor:
        cache.select(parents)
        return go_on(writing.embed_text(words[:, None]))

    return WordModel(go_on(end), write)
