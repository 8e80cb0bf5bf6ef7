"""Inception score: how sure a classifier is of each picture, and of how many classes they are (Salimans et al. 2016,
arXiv:1606.03498).

Shapes: n pictures, F features, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_PART = 5000  # pictures, as ADM's evaluator takes them


class InceptionScore(NamedTuple):
    mean: float  # over parts
    std: float  # 0 for a single part


def inception_score(features: Tensor, classifier: Tensor, part: int = _PART) -> InceptionScore:
    """features (n, F) and classifier (C, F), whose products are logits -> exp of the mean divergence of a picture's
    classes from those of its part: parts of so many pictures in their order, the last perhaps shorter; 1 where all
    pictures look alike, C where each is surely of one class and all classes are there. The score grows with the
    pictures of a part. Raises ValueError for no picture."""
    if not len(features):
        raise ValueError("0 pictures: a score needs one")
    scores = []
    for own in features.split(part):
        log_p = (own.double() @ classifier.double().T).log_softmax(1)  # (part, C)
        overall = log_p.logsumexp(0) - math.log(len(own))
        scores.append((log_p.exp() * (log_p - overall)).sum(1).mean().exp())
    stacked = torch.stack(scores)
    return InceptionScore(float(stacked.mean()), float(stacked.std(correction=0)))
