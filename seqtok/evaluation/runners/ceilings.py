"""What stands beside a share of right pictures: what the tokenizer alone loses, a second reader, and how many shapes.

Shapes: B pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from data_pipelines.samples import to_model
from data_pipelines.scenes import Scene
from seqtok.evaluation.scenes.fitted import FittedReader
from seqtok.evaluation.scenes.generation import Verdict, judge, share
from seqtok.evaluation.scenes.novelty import by_number_of_shapes
from seqtok.evaluation.scenes.scoring import ATTRIBUTES


def second_opinion(pictures: Mapping[str, Tensor], scenes: Sequence[Scene], level: int) -> dict[str, dict[str, Any]]:
    """Sets of pictures (B, 3, H, W) uint8 by name -> attribute -> name -> the share that is right, as the drawing
    program reads it (fitted.py): stricter than a network, which has a name for every blob."""
    reader = FittedReader()
    verdicts = {name: judge(reader.read(to_model(own)), scenes, level) for name, own in pictures.items()}
    rows = {attribute: {name: share(own, attribute) for name, own in verdicts.items()} for attribute in ATTRIBUTES}
    return {attribute: row for attribute, row in rows.items() if any(value is not None for value in row.values())}


def everything_by_shapes(
    verdicts: Mapping[str, Sequence[Verdict]], scenes: Sequence[Scene]
) -> dict[str, dict[str, float]]:
    """Verdicts by name -> number of shapes -> name -> the share with everything right: what has one shape is often in
    the training word for word, what has three hardly ever."""
    found: dict[str, dict[str, float]] = {}
    for name, own in verdicts.items():
        for number, value in by_number_of_shapes(own, scenes).items():
            found.setdefault(number, {})[name] = value
    return found
