"""A second reader of drawn scenes, which was never trained: the drawing program itself, fitted to the picture.

Regions that stand out from the background are taken one by one; of every kind, size and place the drawing is made that
comes nearest to the region, and where even the best is not near, the region shows no shape that the program draws. So
it can say "no", and shares nothing with the network of reader.py but the palette.
Shapes: B pictures of H x W pixels, F fits of a region. Lengths in units of the picture's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.samples import to_bytes
from data_pipelines.scenes import BACKGROUNDS, COLORS, RADII, SHAPES, shape_cover
from seqtok.evaluation.scenes.reader import MOST_SHAPES, Reading, Seen

NO_SHAPE = "no shape"
_STANDS_OUT = 0.5  # of the way from the background's colour to a shape's
_LEAST = 0.006  # area of a region: half of the smallest shape's is four times as much
_FAR = 0.16  # root mean square of the cover's error over region and rim, beyond which nothing was recognised
_STRANGE = 45.0  # distance of a colour from the ways between background and palette, in 8-bit RGB, beyond which it has
# no name
_STEPS = np.linspace(-0.6, 0.6, 5)  # pixels that a centre is moved by
_RADII = np.linspace(0.12, 0.225, 15)
_OFF_AREA = 0.3  # share by which a drawing's area may differ from the region's
_BETWEEN = (RADII["small"][1] + RADII["large"][0]) / 2
_SIDE = 32  # pixels; larger pictures are made as small


@dataclass(frozen=True)
class _Region:
    """Pixels that belong together, those around them, and how far each is covered."""

    inside: NDArray[np.bool_]  # (H, W)
    looked_at: NDArray[np.bool_]  # (H, W), with the rim
    cover: NDArray[np.float64]  # (H, W), 0 the background, 1 the shape
    color: str


class FittedReader:
    """pixels (B, 3, H, W) in [-1, 1] -> readings, as SceneReader gives them."""

    def read(self, pixels: Tensor, batch: int = 500) -> list[Reading]:
        if pixels.shape[-1] > _SIDE:
            pixels = torch.nn.functional.interpolate(pixels, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        return [read_by_fit(picture) for picture in to_bytes(pixels).permute(0, 2, 3, 1).cpu().numpy()]


def read_by_fit(picture: NDArray[np.uint8]) -> Reading:
    """(H, W, 3) RGB -> what it shows. A region that is no shape counts as an object of the kind NO_SHAPE."""
    image = picture.astype(np.float64)
    border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    ground = np.median(border, 0)
    background = min(BACKGROUNDS, key=lambda name: float(np.linalg.norm(ground - BACKGROUNDS[name])))
    found = [_named(region) for region in _regions(image, ground)]
    return Reading(tuple(found[:MOST_SHAPES]), background)


def _regions(image: NDArray[np.float64], ground: NDArray[np.float64]) -> list[_Region]:
    """Connected pixels of one colour of the palette, from the largest on."""
    names = list(COLORS)
    ways = np.array([COLORS[name] for name in names], dtype=np.float64) - ground  # (C, 3)
    offset = image - ground
    along = np.einsum("hwd,cd->hwc", offset, ways) / (ways**2).sum(1)  # how far each pixel lies on the way to a colour
    beside = np.linalg.norm(offset[:, :, None] - np.clip(along, 0, 1)[..., None] * ways, axis=-1)
    nearest = beside.argmin(-1)
    cover = np.take_along_axis(along, nearest[..., None], -1)[..., 0]
    strange = np.linalg.norm(offset, axis=-1) > _STRANGE
    standing = (cover > _STANDS_OUT) | (strange & (beside.min(-1) > _STRANGE))
    found = []
    for color, name in enumerate(names):
        for inside in _connected(standing & (nearest == color)):
            if inside.mean() < _LEAST:
                continue
            rim = _grown(_grown(inside)) & ~(standing & ~inside)
            reached = np.clip(along[..., color], 0, 1)
            far = float(np.median(beside[..., color][inside])) > _STRANGE
            found.append(_Region(inside, rim, reached, NO_SHAPE if far else name))
    return sorted(found, key=lambda region: -int(region.inside.sum()))


def _named(region: _Region) -> Seen:
    size = len(region.cover)
    weight = np.where(region.looked_at, region.cover, 0.0)
    rows, columns = (np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size
    x, y = float((weight.sum(0) * columns).sum() / weight.sum()), float((weight.sum(1) * rows).sum() / weight.sum())
    best, kind, radius, at = np.inf, NO_SHAPE, float(_RADII[0]), (x, y)
    for name in SHAPES:
        covers, areas, places = _drawings(name, size)
        near = np.flatnonzero(np.abs(areas / weight.sum() - 1) < _OFF_AREA)
        if not len(near):
            continue
        # The drawings' centres of mass lie in the middle of the picture: whole pixels are shifted, the rest is fitted.
        shift = (round(x * size - size / 2), round(y * size - size / 2))
        moved = np.roll(covers[near], (shift[1], shift[0]), (1, 2))
        errors = ((moved - region.cover) ** 2)[:, region.looked_at].mean(1)
        which = int(errors.argmin())
        if errors[which] < best:
            place = places[near[which]]
            best, kind, radius = float(errors[which]), name, place[0]
            at = place[1] + shift[0] / size, place[2] + shift[1] / size
    named = kind if best**0.5 <= _FAR and region.color != NO_SHAPE else NO_SHAPE
    return Seen(named, region.color, "small" if radius < _BETWEEN else "large", *at)


@cache
def _drawings(
    kind: str, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[tuple[float, float, float]]]:
    """(F, H, W) covers of a kind about the middle, of every radius and part of a pixel; their sums (F,); and
    the radius, x and y of each."""
    covers, places = [], []
    for radius in _RADII:
        middle = shape_cover(kind, 0.5, 0.5, float(radius), size)
        rows = (np.arange(size) + 0.5) / size
        lower = float((middle.sum(1) * rows).sum() / middle.sum()) - 0.5  # of the centre of mass, below the centre
        for dx in _STEPS / size:
            for dy in _STEPS / size:
                place = (float(radius), 0.5 + float(dx), 0.5 - lower + float(dy))
                covers.append(shape_cover(kind, place[1], place[2], place[0], size))
                places.append(place)
    whole = np.stack(covers)
    return whole, whole.sum((1, 2)), places


def _connected(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Regions whose pixels touch along an edge."""
    left, found = mask.copy(), []
    while left.any():
        region = np.zeros_like(left)
        region[np.unravel_index(left.argmax(), left.shape)] = True
        while True:
            wider = _grown(region) & left
            if (wider == region).all():
                break
            region = wider
        found.append(region)
        left &= ~region
    return found


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the neighbours above, below and beside."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    return wide
