"""Scenes in which one shape is none: a bulging patch in its place, as models draw that have half understood.

A reader that never saw such a patch has a name for each; one that has seen them can say "no".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_pipelines.scenes import Scene, shape_cover

_WAVES = range(2, 6)  # bulges around the outline
_BULGE = 0.22  # standard deviation of each wave's height, in shares of the radius
_LEAST, _MOST = 0.4, 1.3  # radii: a patch stays off its neighbours
_ROUND = 0.2  # outlines that bulge less in all are drawn again: those are circles


def blob_cover(x: float, y: float, radius: float, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(size, size): the share of each pixel that a patch about (x, y) covers, in units of the picture's side."""
    center = (np.arange(size) + 0.5) / size
    down, across = np.meshgrid(center - y, center - x, indexing="ij")
    angle, distance = np.arctan2(down, across), np.hypot(across, down)
    while True:
        heights, phases = rng.normal(0, _BULGE, len(_WAVES)), rng.uniform(0, 2 * np.pi, len(_WAVES))
        if np.linalg.norm(heights) > _ROUND:
            break
    outline = 1 + sum(h * np.cos(n * angle + p) for n, h, p in zip(_WAVES, heights, phases, strict=True))
    return np.clip(0.5 - (distance - radius * np.clip(outline, _LEAST, _MOST)) * size, 0.0, 1.0)


def render_with_blob(scene: Scene, which: int, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB: the scene with a patch of the same place, size and colour for its shape `which`."""
    image = np.empty((size, size, 3))
    image[:] = scene.background_rgb
    for number, shape in enumerate(scene.shapes):
        if number == which:
            cover = blob_cover(shape.x, shape.y, shape.radius, size, rng)
        else:
            cover = shape_cover(shape.kind, shape.x, shape.y, shape.radius, size)
        image = image * (1.0 - cover[..., None]) + cover[..., None] * np.asarray(shape.rgb, dtype=np.float64)
    return np.rint(image).astype(np.uint8)
