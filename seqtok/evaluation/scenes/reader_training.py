"""Training of the scene reader, on scenes that no contestant was trained on and no test asks for.

Scenes are drawn from both distributions, with and without the combinations that are kept for the test
split, by a seed of the reader's own. Half of the pictures are blurred, made noisy or overlaid with a faint
ghost of another one, so that a generated picture is read as a person would read it: by what it plainly
shows.
Shapes: B pictures, M = 3 shapes per scene (the unused ones have mask 0), G = 16 cells per side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipelines.samples import to_model
from data_pipelines.scenes import BACKGROUNDS, COLORS, RADII, SHAPES, Scene, make_scene, render
from seqtok.evaluation.readers.spoiling import spoil
from seqtok.evaluation.readers.training import SEED_SPACE, Progress, ReaderTraining, fit_reader
from seqtok.evaluation.scenes.blobs import render_with_blob
from seqtok.evaluation.scenes.reader import GRID, INPUT_SIZE, SceneReader

_HEAT_WIDTH = 1.0  # standard deviation of a centre's heat, in cells
# Of the mean over cells. With 256 (their sum) heat drowns the kinds: after 48,000 pictures 73 % of the
# scenes had all kinds right, against 99.8 %.
_HEAT_SHARE = 10.0


class ReaderConfig(ReaderTraining):
    """`scenes` are drawn once and seen again mirrored, blurred and overlaid until `images` have been seen; beside them
    `blobs`, scenes in which one shape is a bulging patch, which is to have no name."""

    scenes: int = 12_000
    blobs: int = 4_000


@dataclass(frozen=True)
class SceneTargets:
    """Pictures with everything that the reader must say about them."""

    pixels: Tensor  # (B, 3, 32, 32) float in [-1, 1]
    place: Tensor  # (B, M, 2) x and y of the centres in cells
    mask: Tensor  # (B, M) float
    names: Tensor  # (B, M, 3) int64: kind, colour, size
    background: Tensor  # (B,) int64


def train_reader(config: ReaderConfig, progress: Progress | None = None) -> SceneReader:
    """Draw, train and return the reader in eval mode."""
    data = draw_targets(config.scenes, config.seed, config.blobs)

    def loss_of(reader: SceneReader, step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(data.mask), (config.batch,), generator=generator)
        seen = mirror(_take(data, chosen), generator)
        return reader_loss(reader, replace(seen, pixels=spoil(seen.pixels, generator)))

    return fit_reader(lambda: SceneReader(config.width), loss_of, config, progress)


def draw_targets(count: int, seed: int, blobs: int = 0) -> SceneTargets:
    """`count` scenes, every second one with a combination that contestants never see in training; and `blobs` more, of
    each of which one shape is a patch that no target speaks of."""
    scenes = [make_scene(SEED_SPACE + seed, index, "test") for index in range(count + blobs)]
    rng = np.random.default_rng(SEED_SPACE + seed)
    patched = {index: int(rng.integers(len(scenes[index].shapes))) for index in range(count, count + blobs)}
    drawn = [render(scene, INPUT_SIZE) for scene in scenes[:count]]
    drawn += [render_with_blob(scenes[index], which, INPUT_SIZE, rng) for index, which in patched.items()]
    pixels = to_model(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2))  # of (B, 32, 32, 3)
    total = len(scenes)
    place, mask, names = torch.zeros(total, 3, 2), torch.zeros(total, 3), torch.zeros(total, 3, 3).long()
    for row, scene in enumerate(scenes):
        for slot, shape in enumerate(scene.shapes):
            if patched.get(row) == slot:
                continue
            place[row, slot] = torch.tensor([shape.x, shape.y]) * GRID
            mask[row, slot] = 1.0
            names[row, slot] = torch.tensor(
                [SHAPES.index(shape.kind), list(COLORS).index(shape.color), list(RADII).index(shape.size)]
            )
    return SceneTargets(pixels, place, mask, names, _backgrounds(scenes))


def reader_loss(reader: SceneReader, data: SceneTargets) -> Tensor:
    """Mean over pictures: heat (cross-entropy), and names and offset at the cells near each centre."""
    maps = reader(data.pixels)
    axis = torch.arange(GRID) + 0.5
    dx = data.place[..., 0, None, None] - axis  # (B, M, 1, G)
    dy = data.place[..., 1, None, None] - axis[:, None]  # (B, M, G, 1)
    near = torch.exp(-(dx**2 + dy**2) / (2 * _HEAT_WIDTH**2)) * data.mask[..., None, None]  # (B, M, G, G)
    heat, owner = near.max(1)  # (B, G, G): nearest shape of each cell
    loss = _HEAT_SHARE * F.binary_cross_entropy_with_logits(maps.heat, heat)
    weight = torch.where(heat > 0.4, heat, 0.0)
    weight = weight / weight.sum()
    offset = torch.stack([dx.expand_as(near), dy.expand_as(near)], 2)  # (B, M, 2, G, G)
    offset = offset.gather(1, owner[:, None, None].expand(-1, 1, 2, -1, -1))[:, 0]
    loss = loss + ((maps.offset - offset).abs().sum(1) * weight).sum()
    for column, logits in enumerate((maps.kind, maps.color, maps.size)):
        target = data.names[..., column].gather(1, owner.flatten(1)).view_as(owner)
        loss = loss + (F.cross_entropy(logits, target, reduction="none") * weight).sum()
    return cast(Tensor, loss + F.cross_entropy(maps.background, data.background))


def _backgrounds(scenes: list[Scene]) -> Tensor:
    return torch.tensor([list(BACKGROUNDS).index(scene.background) for scene in scenes])


def _take(data: SceneTargets, rows: Tensor) -> SceneTargets:
    return SceneTargets(data.pixels[rows], data.place[rows], data.mask[rows], data.names[rows], data.background[rows])


def mirror(data: SceneTargets, generator: torch.Generator) -> SceneTargets:
    """Left and right exchanged in half of the pictures: every shape is its own mirror image."""
    flip = torch.rand(len(data.pixels), generator=generator) < 0.5
    pixels = torch.where(flip[:, None, None, None], data.pixels.flip(3), data.pixels)
    place = data.place.clone()
    place[flip, :, 0] = GRID - place[flip, :, 0]
    return replace(data, pixels=pixels, place=place)
