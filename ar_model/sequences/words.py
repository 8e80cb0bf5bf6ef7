"""How a sequence writes: the image is read once, and its keys and values serve every word.

Shapes: B pictures, k <= K latents, W width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.sequences.cache import StaticCache
from ar_model.sequences.layout import attention_mask
from ar_model.writing import WordModel
from data_pipelines.captions.tokenizer import BOI, BOS


def word_model(
    backbone: Backbone, image: Tensor, end: Tensor, length: int, limit: int, together: bool = False
) -> WordModel:
    """`<bos> <boi> image <eoi>` and up to `limit` words. image (B, k, W) and end (B, 1, W), which is <eoi>, are
    embedded; what is missing of K = `length` latents leaves its places. `together`: latents see each other both ways.
    """
    rows, known = image.shape[:2]
    begin = backbone.embed_text(torch.tensor([[BOS, BOI]], device=image.device).expand(rows, -1))
    x = torch.cat([begin, image, end], 1)
    cache = StaticCache(len(backbone.blocks), rows, backbone.heads, x.shape[1] + limit, backbone.head_dim, like=x)
    positions = torch.arange(-1, length + limit + 2, device=image.device)
    positions = torch.cat([positions[: known + 2], positions[length + 2 :]])
    whole = positions[: x.shape[1]]
    seen = whole.clamp(max=1).where((whole >= 1) & (whole <= length), whole) if together else whole
    mask = attention_mask(x.new_ones(rows, len(whole), dtype=torch.bool), seen)
    first = backbone.text_logits(backbone(x, whole, mask, cache)[:, -1])

    def write(parents: Tensor, words: Tensor) -> Tensor:
        cache.select(parents)
        at = cache.filled
        mask = torch.ones(len(words), 1, 1, at + 1, dtype=torch.bool, device=image.device)
        h = backbone(backbone.embed_text(words[:, None]), positions[at : at + 1], mask, cache)
        return backbone.text_logits(h[:, -1])

    return WordModel(first, write)
