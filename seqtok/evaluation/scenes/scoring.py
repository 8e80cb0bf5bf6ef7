"""Does a picture of a drawn scene show what its prompt asked for? Each attribute by its definition.

A prompt names shapes s_0, s_1, ... and relations r_i that hold from s_0 to s_(i+1). A picture is judged by
its reading. What a prompt's caption level does not say is not judged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import permutations

from data_pipelines.scenes import Scene, Shape
from seqtok.evaluation.scenes.reader import Reading, Seen

_OPENING = re.compile(r"^(a picture of|there is) ")
_GROUND = re.compile(r" on (?:a )?(\w+)(?: background)?$")
_COUNT = re.compile(r"^(one|two|three) shapes?( on a plain background)?$")

# Attribute -> (the coarsest caption level that says it, what "right" means).
ATTRIBUTES: dict[str, tuple[int, str]] = {
    "count": (0, "as many shapes as asked"),
    "shape": (1, "the kinds of all shapes, each as often as asked"),
    "color": (2, "the colours of all shapes, each as often as asked"),
    "binding": (2, "each colour on the shape that it was asked for"),
    "size": (3, "the sizes of all shapes, each as often as asked"),
    "relation": (
        3,
        "every named relation holds between shapes of the named kinds (prompts with 2 or 3 shapes)",
    ),
    "place": (3, "the shape lies in the named ninth of the picture (prompts with 1 shape)"),
    "background": (3, "the background has the named colour"),
    "everything": (0, "one assignment of the seen to the named shapes makes all that was said true at once"),
}
LEVELS = ("count", "shapes", "colors", "details")  # what the captions say, coarse to fine
FINEST = len(LEVELS) - 1
_EDGE = 0.03  # a centre this near to a ninth's edge (a pixel of 32) counts as inside


def scene_meaning(caption: str) -> str:
    """What a caption of a drawn scene says, whatever its wording.

    "two shapes on a plain background" and "a picture of two shapes" say the same, and so do
    "a circle and a square" and "there is a square and a circle".
    """
    said = _OPENING.sub("", caption.strip().lower())
    if counted := _COUNT.match(said):
        return counted[1]
    said, grounded = _GROUND.subn(r" on \1", said)
    if grounded:
        return said
    return " & ".join(sorted(re.split(r", | and ", said)))


def score_reading(reading: Reading, scene: Scene, level: int = FINEST) -> dict[str, bool]:
    """Attribute -> right or wrong; attributes that the prompt at `level` does not speak of are left out."""
    seen, asked = reading.objects, scene.shapes
    right = {
        "count": len(seen) == len(asked),
        "shape": Counter(s.kind for s in seen) == Counter(s.kind for s in asked),
        "color": Counter(s.color for s in seen) == Counter(s.color for s in asked),
        "binding": Counter((s.kind, s.color) for s in seen) == Counter((s.kind, s.color) for s in asked),
        "size": Counter(s.size for s in seen) == Counter(s.size for s in asked),
        "background": reading.background == scene.background,
        "everything": _everything(reading, scene, level),
    }
    if len(asked) > 1:
        right["relation"] = level >= FINEST and _relations(seen, scene)
    else:
        right["place"] = any(in_place(s, scene) for s in seen if s.kind == asked[0].kind)
    return {name: right[name] for name, (first, _) in ATTRIBUTES.items() if first <= level and name in right}


def relation_holds(relation: str, a: Seen | Shape, b: Seen | Shape) -> bool:
    """Whether a stands in `relation` to b: on that side, and farther along that axis than along the other."""
    dx, dy = b.x - a.x, b.y - a.y
    if relation in ("left of", "right of"):
        return abs(dx) > abs(dy) and (dx > 0) == (relation == "left of")
    return abs(dy) > abs(dx) and (dy > 0) == (relation == "above")


def in_place(seen: Seen, scene: Scene) -> bool:
    """Whether the seen shape lies in the ninth that the scene's only shape lies in."""
    only = scene.shapes[0]
    return all(
        int(min(at * 3, 2)) / 3 - _EDGE <= got <= (int(min(at * 3, 2)) + 1) / 3 + _EDGE
        for got, at in ((seen.x, only.x), (seen.y, only.y))
    )


def _relations(seen: tuple[Seen, ...], scene: Scene) -> bool:
    """Where the prompt names one kind twice, the colour says which of the two is meant."""
    kinds = [s.kind for s in scene.shapes]
    twice = {kind for kind in kinds if kinds.count(kind) > 1}

    def same(got: Seen, asked: Shape) -> bool:
        return got.kind == asked.kind and (got.color == asked.color or asked.kind not in twice)

    return any(
        all(same(g, a) for g, a in zip(chosen, scene.shapes, strict=True)) and _related(chosen, scene)
        for chosen in permutations(seen, len(scene.shapes))
    )


def _related(chosen: Sequence[Seen], scene: Scene) -> bool:
    return all(
        relation_holds(relation, chosen[0], other) for relation, other in zip(scene.relations, chosen[1:], strict=True)
    )


def fits(seen: Sequence[Seen], background: str, scene: Scene, level: int = FINEST) -> bool:
    """Whether the seen shapes, taken in the order of the scene's, are all that its caption of `level` says."""
    if len(seen) != len(scene.shapes) or (level >= FINEST and background != scene.background):
        return False
    for got, asked in zip(seen, scene.shapes, strict=True):
        if level >= 1 and got.kind != asked.kind:
            return False
        if level >= 2 and got.color != asked.color:
            return False
        if level >= FINEST and got.size != asked.size:
            return False
    if level < FINEST:
        return True
    return in_place(seen[0], scene) if len(seen) == 1 else _related(seen, scene)


def _everything(reading: Reading, scene: Scene, level: int) -> bool:
    orders = permutations(reading.objects)
    return any(fits(order, reading.background, scene, level) for order in orders)
