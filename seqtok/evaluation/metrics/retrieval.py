"""Zero-shot retrieval: which caption belongs to a picture, and which picture to a caption, by cosine
similarity.

Candidates are the different captions of one level in the gallery; an answer is right when it is true of the
picture as its own caption is: equal words, or (drawn scenes) other words for the same content.
Shapes: B pictures, U different captions, E text-image space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

import torch
from torch import Tensor

RANKS = (1, 5)


def recall(images: Tensor, texts: Tensor, match: Tensor) -> dict[str, float]:
    """images (B, E) and texts (U, E) of unit norm, match (B, U) bool -> share of queries with a right answer
    among the nearest 1 and 5: `image_to_caption_r1`, `..._r5`, `caption_to_image_r1`, `..._r5`."""
    similarity = images.float() @ texts.float().T
    found = {}
    for name, score, right in (
        ("image_to_caption", similarity, match),
        ("caption_to_image", similarity.T, match.T),
    ):
        nearest = score.topk(min(max(RANKS), score.shape[1]), dim=1).indices
        hits = right.gather(1, nearest)
        for rank in RANKS:
            found[f"{name}_r{rank}"] = float(hits[:, :rank].any(1).float().mean())
    return found


def recall_chance(match: Tensor) -> dict[str, float]:
    """What a random order of the candidates would reach, exactly. match (B, U) bool."""
    found = {}
    for name, right in (("image_to_caption", match), ("caption_to_image", match.T)):
        candidates = right.shape[1]
        counts = torch.bincount(right.sum(1)).tolist()  # queries by their number of right answers
        for rank in RANKS:
            drawn = min(rank, candidates)
            missed = sum(n * comb(candidates - good, drawn) / comb(candidates, drawn) for good, n in enumerate(counts))
            found[f"{name}_r{rank}"] = 1.0 - missed / len(right)
    return found


def gallery(captions: Sequence[str], meaning: Callable[[str], str] = str) -> tuple[list[int], Tensor]:
    """B captions of one level -> (positions of the first picture with each different caption (U), match (B,
    U)).

    `meaning` maps captions that say the same to one string; by default only equal captions say the same.
    """
    first: dict[str, int] = {}
    for position, caption in enumerate(captions):
        first.setdefault(caption, position)
    meanings = [meaning(caption) for caption in captions]
    number = {word: i for i, word in enumerate(dict.fromkeys(meanings))}
    own = torch.tensor([number[m] for m in meanings])
    kept = list(first.values())
    return kept, own[:, None] == own[kept][None]
