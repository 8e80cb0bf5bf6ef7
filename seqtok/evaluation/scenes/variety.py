"""Do drawings of one prompt differ as real pictures of one caption do? What a caption leaves open is where exactly the
shapes stand: guidance and cold noise buy right answers with pictures that are all alike.

The real side is known: the drawing program moves the shapes of a scene wherever else its finest caption lets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from data_pipelines.scenes import Scene, moved
from seqtok.evaluation.scenes.reader import Reading, Seen, true_reading
from seqtok.evaluation.scenes.scoring import fits

_MOVED = 3  # real pictures of a caption that are held against each other


def position_spread(
    first: Sequence[Reading], second: Sequence[Reading], scenes: Sequence[Scene]
) -> dict[str, float | None]:
    """Two drawings of each scene's finest caption -> "value": the standard deviation of a shape's place, in units of
    the picture's side, "real": that of the same shapes in real pictures of the same captions, "shapes": how many.

    Pairs of which one is not right in everything are left out, and so are captions that name two shapes alike: which
    of them is which cannot be seen. Where nothing is left, the first two are None."""
    drawn, real = list[float](), list[float]()
    for a, b, scene in zip(first, second, scenes, strict=True):
        names = {(shape.kind, shape.color, shape.size) for shape in scene.shapes}
        matched = [_in_order(reading, scene) for reading in (a, b)]
        if len(names) < len(scene.shapes) or not all(matched):
            continue
        drawn += _squares(*matched)
        others = [true_reading(moved(scene, seed=len(real) + further)).objects for further in range(_MOVED)]
        real += [square for one, other in combinations(others, 2) for square in _squares(one, other)]
    return {"value": _std(drawn), "real": _std(real), "shapes": len(drawn)}


def _in_order(reading: Reading, scene: Scene) -> tuple[Seen, ...]:
    """The seen shapes in the order of the scene's; () where they are not right in everything."""
    return next((order for order in permutations(reading.objects) if fits(order, reading.background, scene)), ())


def _squares(a: Sequence[Seen], b: Sequence[Seen]) -> list[float]:
    """Of each shape half the squared distance of its two places, a mean over both axes: an estimate of the variance."""
    return [((one.x - other.x) ** 2 + (one.y - other.y) ** 2) / 4 for one, other in zip(a, b, strict=True)]


def _std(squares: Sequence[float]) -> float | None:
    return (sum(squares) / len(squares)) ** 0.5 if squares else None
