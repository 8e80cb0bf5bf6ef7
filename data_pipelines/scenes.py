"""Drawn scenes: endless image-text pairs without any data set. One to three shapes on a plain background.

A scene is a pure function of (seed, split, index). Its captions form a pyramid of four levels: how many
shapes, which shapes, their colours, then sizes, places and background. Some combinations of shape and colour,
and of shape, relation and shape, occur in the test split only, so that a model can be asked for what it never saw.
Geometry is in units of the picture's side, x to the right and y down; edges are anti-aliased by signed distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]

SHAPES = ("circle", "square", "triangle", "cross")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 205, 40),
    "purple": (150, 60, 190),
    "cyan": (50, 195, 210),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
    "black": (15, 15, 15),
    "beige": (240, 215, 180),
}
RADII = {"small": (0.135, 0.15), "large": (0.19, 0.21)}
RELATIONS = ("left of", "right of", "above", "below")
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")

# Only in the test split. Every shape and every colour is still seen in training, in other company.
UNSEEN_PAIRS = frozenset({("red", "cross"), ("green", "circle"), ("blue", "triangle"), ("yellow", "square")})
UNSEEN_RELATIONS = frozenset(
    {("circle", "above", "triangle"), ("square", "left of", "cross"), ("triangle", "right of", "square")}
)

_SPLIT_KEY = {"train": 0, "val": 1, "test": 2}
_COLOR_JITTER = 3  # uniform, in 8-bit levels, one draw per shape and channel
_GAP = 0.03  # least distance between two shapes and from the border
_PLAIN = 1.25  # a relation holds when its axis outweighs the other one by this factor

COLOR_SETS = tuple(s for n in (1, 2, 3) for s in combinations(COLORS, n))
SHAPE_SETS = tuple(s for n in (1, 2, 3) for s in combinations(SHAPES, n))
# Label name -> the words of its classes. `relation` and `place` carry one class for "does not apply".
LABELS: dict[str, tuple[str, ...]] = {
    "count": ("one", "two", "three"),
    "shapes": tuple("+".join(s) for s in SHAPE_SETS),
    "colors": tuple("+".join(s) for s in COLOR_SETS),
    "main_shape": SHAPES,
    "main_color": tuple(COLORS),
    "main_size": tuple(RADII),
    "relation": ("none", *RELATIONS),
    "place": ("several", *PLACES),
    "background": tuple(BACKGROUNDS),
    "unseen": ("no", "yes"),
}
# Which labels speak of the same thing as which caption level, coarse to fine.
LEVEL_LABELS: tuple[tuple[str, ...], ...] = (
    ("count",),
    ("shapes",),
    ("colors",),
    ("relation", "main_size", "background"),
)


@dataclass(frozen=True)
class Shape:
    kind: str
    color: str
    size: str
    x: float
    y: float
    radius: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """Shapes in the order in which the captions name them; relations[i] holds from shape 0 to shape i + 1."""

    shapes: tuple[Shape, ...]
    relations: tuple[str, ...]
    background: str
    background_rgb: tuple[int, int, int]
    captions: tuple[str, str, str, str]

    @property
    def unseen(self) -> bool:
        """Whether the scene holds a combination that no training scene holds."""
        return _is_unseen(self.shapes, self.relations)

    @property
    def labels(self) -> dict[str, int]:
        """Class index for every name in LABELS, of the picture alone: `main_...` are of the first shape in the order of
        the coarse captions, not of the one that is named first, and `relation` is how it lies to the second."""
        first, *others = sorted(self.shapes, key=lambda shape: (*_by_kind(shape), shape.x, shape.y))
        kinds = tuple(k for k in SHAPES if any(s.kind == k for s in self.shapes))
        colors = tuple(c for c in COLORS if any(s.color == c for s in self.shapes))
        return {
            "count": len(self.shapes) - 1,
            "shapes": SHAPE_SETS.index(kinds),
            "colors": COLOR_SETS.index(colors),
            "main_shape": SHAPES.index(first.kind),
            "main_color": list(COLORS).index(first.color),
            "main_size": list(RADII).index(first.size),
            "relation": 1 + RELATIONS.index(_side_of(first, others[0])) if others else 0,
            "place": 0 if others else 1 + PLACES.index(place_of(first)),
            "background": list(BACKGROUNDS).index(self.background),
            "unseen": int(self.unseen),
        }


def make_scene(seed: int, index: int, split: Split = "train") -> Scene:
    """The scene number `index` of a split. Test scenes are unseen combinations in every second index."""
    rng = sample_generator(seed, index, split)
    wanted = split == "test" and index % 2 == 1
    while True:  # rejection keeps each split's distribution simple to state; about 2 draws in train, 3 in test
        shapes, relations = _arrange(rng)
        if _is_unseen(shapes, relations) == wanted:
            break
    background = _pick(rng, tuple(BACKGROUNDS))
    rgb = _jitter(rng, BACKGROUNDS[background])
    return Scene(shapes, relations, background, rgb, _captions(rng, shapes, relations, background))


def sample_generator(seed: int, index: int, split: Split) -> np.random.Generator:
    """Of what is random in the drawn picture number `index` of a split, and in no other."""
    return np.random.Generator(np.random.Philox(key=[seed, (_SPLIT_KEY[split] << 48) + index]))


def moved(scene: Scene, seed: int) -> Scene:
    """Another scene of the same finest caption: its shapes stand where else the caption lets them, by the same law."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 3 << 48]))
    sizes = [shape.size for shape in scene.shapes]
    while True:
        stood = _stand(rng, sizes)
        if stood is None:
            continue
        places = zip(scene.shapes, *stood, strict=True)
        shapes = tuple(replace(shape, x=x, y=y, radius=radius) for shape, (x, y), radius in places)
        if len(shapes) == 1 and place_of(shapes[0]) != place_of(scene.shapes[0]):
            continue
        if tuple(relation_between(shapes[0], other) for other in shapes[1:]) == scene.relations:
            return replace(scene, shapes=shapes)


def render(scene: Scene, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB."""
    image = np.empty((size, size, 3), dtype=np.float64)
    image[:] = scene.background_rgb
    for shape in scene.shapes:
        cover = shape_cover(shape.kind, shape.x, shape.y, shape.radius, size)[..., None]
        image = image * (1.0 - cover) + cover * np.asarray(shape.rgb, dtype=np.float64)
    return np.rint(image).astype(np.uint8)


def shape_cover(kind: str, x: float, y: float, radius: float, size: int) -> NDArray[np.float64]:
    """(size, size): the share of each pixel that the shape covers."""
    center = (np.arange(size, dtype=np.float64) + 0.5) / size
    down, across = np.meshgrid(center, center, indexing="ij")
    distance = _signed_distance(kind, across - x, down - y, radius)
    return np.clip(0.5 - distance * size, 0.0, 1.0)  # one pixel wide edge


def place_of(shape: Shape) -> str:
    """The ninth of the picture that holds the shape's centre, as `PLACES` names it."""
    return PLACES[3 * min(int(shape.y * 3), 2) + min(int(shape.x * 3), 2)]


def _signed_distance(kind: str, x: NDArray, y: NDArray, r: float) -> NDArray:
    """Negative inside. Shapes of equal `r` look about equally large."""
    if kind == "circle":
        return np.hypot(x, y) - r
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * r
    if kind == "triangle":  # equilateral, apex up
        slanted = 0.8660254 * np.abs(x) - 0.5 * (y + 1.1 * r)
        return np.maximum(slanted, y - 0.75 * r)
    long, short = r, 0.34 * r
    bar = np.maximum(np.abs(x) - long, np.abs(y) - short)
    post = np.maximum(np.abs(x) - short, np.abs(y) - long)
    return np.minimum(bar, post)


def _arrange(rng: np.random.Generator) -> tuple[tuple[Shape, ...], tuple[str, ...]]:
    count = int(rng.integers(1, 4))
    centers, radii, sizes = _places(rng, count)
    shapes = []
    for (x, y), radius, size in zip(centers, radii, sizes, strict=True):
        kind, color = _pick(rng, SHAPES), _pick(rng, tuple(COLORS))
        shapes.append(Shape(kind, color, size, x, y, radius, _jitter(rng, COLORS[color])))
    return tuple(shapes), tuple(relation_between(shapes[0], other) for other in shapes[1:])


def _places(rng: np.random.Generator, count: int) -> tuple[list[tuple[float, float]], list[float], list[str]]:
    """Centres, radii and sizes."""
    while True:
        sizes = [_pick(rng, tuple(RADII)) for _ in range(count)]
        if stood := _stand(rng, sizes):
            return *stood, sizes


def _stand(rng: np.random.Generator, sizes: Sequence[str]) -> tuple[list[tuple[float, float]], list[float]] | None:
    """Centres and radii of shapes that do not overlap; seen from the first, the others lie plainly along one axis and
    in different directions. None where those that are drawn do not."""
    radii = [float(rng.uniform(*RADII[s])) for s in sizes]
    centers = [(float(x), float(y)) for x, y in (rng.uniform(r + _GAP, 1 - r - _GAP, 2) for r in radii)]
    apart = all(
        max(abs(a[0] - b[0]), abs(a[1] - b[1])) > radii[i] + radii[j] + _GAP
        for (i, a), (j, b) in combinations(enumerate(centers), 2)
    )
    if not apart:
        return None
    seen = [[r for r in RELATIONS if _holds(r, centers[0], other)] for other in centers[1:]]
    return (centers, radii) if all(seen) and len({r[0] for r in seen}) == len(seen) else None


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _holds(relation: str, a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether a stands in `relation` to b, and along that axis more than along the other."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along, across = (dx, dy) if relation in ("left of", "right of") else (dy, dx)
    if relation in ("right of", "below"):
        along = -along
    return along > _PLAIN * abs(across)


def relation_between(a: Shape, b: Shape) -> str:
    """The one relation of RELATIONS that holds from a to b."""
    return next(r for r in RELATIONS if _holds(r, (a.x, a.y), (b.x, b.y)))


def _side_of(a: Shape, b: Shape) -> str:
    """Where a lies as seen from b, by the axis along which they are farther apart."""
    across, down = "left of" if b.x > a.x else "right of", "above" if b.y > a.y else "below"
    return across if abs(b.x - a.x) > abs(b.y - a.y) else down


def _is_unseen(shapes: tuple[Shape, ...], relations: tuple[str, ...]) -> bool:
    if any((s.color, s.kind) in UNSEEN_PAIRS for s in shapes):
        return True
    first = shapes[0].kind
    return any(
        (first, relation, other.kind) in UNSEEN_RELATIONS
        or (other.kind, _OPPOSITE[relation], first) in UNSEEN_RELATIONS
        for relation, other in zip(relations, shapes[1:], strict=True)
    )


def _jitter(rng: np.random.Generator, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.asarray(rgb) + rng.integers(-_COLOR_JITTER, _COLOR_JITTER + 1, 3), 0, 255)
    return int(red), int(green), int(blue)


def _captions(
    rng: np.random.Generator, shapes: tuple[Shape, ...], relations: tuple[str, ...], background: str
) -> tuple[str, str, str, str]:
    """How many; which; which colours; sizes, places and background."""
    word = LABELS["count"][len(shapes) - 1]
    noun = "shape" if len(shapes) == 1 else "shapes"
    count = _pick(rng, (f"{word} {noun}", f"a picture of {word} {noun}", f"{word} {noun} on a plain background"))
    kinds = _listed([s.kind for s in sorted(shapes, key=_by_kind)])
    colors = _listed([f"{s.color} {s.kind}" for s in sorted(shapes, key=_by_kind)])
    opening = _pick(rng, ("", "a picture of ", "there is "))
    full = [f"a {s.size} {s.color} {s.kind}" for s in shapes]
    if len(shapes) == 1:
        detail = f"{full[0]} at the {place_of(shapes[0])}"
    else:
        joined = [f"{rel} {name}" for rel, name in zip(relations, full[1:], strict=True)]
        detail = f"{full[0]} " + " and ".join(joined)
    ground = _pick(rng, (f" on a {background} background", f" on {background}"))
    return count, opening + kinds, opening + colors, detail + ground


def _by_kind(shape: Shape) -> tuple[int, int]:
    """One order for what an image cannot tell, so that coarse captions of like pictures are the same text."""
    return SHAPES.index(shape.kind), list(COLORS).index(shape.color)


def _listed(names: list[str]) -> str:
    """ "a circle, two crosses and a square": equal names stand together in `names` and are counted."""
    parts = []
    for name in dict.fromkeys(names):
        count = names.count(name)
        plural = name + ("es" if name.endswith("ss") else "s")
        parts.append(f"a {name}" if count == 1 else f"{LABELS['count'][count - 1]} {plural}")
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
