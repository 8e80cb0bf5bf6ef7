"""The reader: a small network that says what a picture of a drawn scene shows.

It finds shapes as peaks of a heat map (CenterNet, Zhou et al. 2019, arXiv:1904.07850) on a 16 x 16 grid and
names kind, colour, size and place of each; the background is named once. Count and relations then follow
from geometry. It always looks at 32 x 32 pixels, so that one reader judges pictures of any size.
Shapes: B pictures, G = 16 cells per side, M most shapes that are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipelines.samples import to_model
from data_pipelines.scenes import BACKGROUNDS, COLORS, RADII, SHAPES, Scene

INPUT_SIZE = 32  # pixels per side that the network looks at
GRID = 16  # cells per side of its heat map
MOST_SHAPES = 5  # one more than any prompt asks for would do; a picture that is full of shapes shows as 5
_NAMES = (SHAPES, tuple(COLORS), tuple(RADII))
_PARTS = (1, 2, len(SHAPES), len(COLORS), len(RADII))  # heat, offset, kind, colour, size
_THRESHOLD = 0.45  # heat of a true peak is at least 0.78, half-way between two shapes it is below 0.2


@dataclass(frozen=True)
class Seen:
    """One shape as the reader sees it; x to the right and y down, in units of the picture's side."""

    kind: str
    color: str
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class Reading:
    """What one picture shows."""

    objects: tuple[Seen, ...]
    background: str


@dataclass(frozen=True)
class ReaderMaps:
    """What the network says about every cell, before peaks are picked."""

    heat: Tensor  # (B, G, G) logits: is this cell the centre of a shape?
    offset: Tensor  # (B, 2, G, G) x and y from the cell's centre, in cells
    kind: Tensor  # (B, 4, G, G) logits
    color: Tensor  # (B, 6, G, G) logits
    size: Tensor  # (B, 2, G, G) logits
    background: Tensor  # (B, 4) logits


class SceneReader(nn.Module):
    """(B, 3, H, W) pixels in [-1, 1] -> ReaderMaps."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _conv(12, 32), _conv(32, 32), _conv(32, width, stride=2))
        self.trunk = nn.ModuleList([_conv(width, width) for _ in range(3)])
        self.head = nn.Sequential(nn.Conv2d(width, 4 * sum(_PARTS), 1), nn.PixelShuffle(2))
        self.ground = nn.Linear(width, len(BACKGROUNDS))
        for convolution in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            weight = convolution.weight.data
            convolution.weight.data = weight.contiguous(memory_format=torch.channels_last)  # faster on CPU

    def forward(self, pixels: Tensor) -> ReaderMaps:
        h = self._seen(pixels)
        heat, offset, kind, color, size = self.head(h).split(_PARTS, dim=1)
        return ReaderMaps(heat[:, 0], offset, kind, color, size, self.ground(h.mean((2, 3))))

    def _seen(self, pixels: Tensor) -> Tensor:
        """-> (B, width, 8, 8)."""
        if pixels.shape[-2:] != (INPUT_SIZE, INPUT_SIZE):
            pixels = F.interpolate(pixels, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
        h = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        for layer in self.trunk:
            h = h + layer(h)
        return h

    @torch.no_grad()
    def features(self, pictures: Tensor, batch: int = 500) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 4 width) float32: means over the quarters, for distances between sets."""
        self.eval()
        parts = (self._seen(to_model(part)) for part in pictures.split(batch))
        return torch.cat([F.adaptive_avg_pool2d(part, 2).flatten(1) for part in parts])

    @torch.no_grad()
    def read(self, pixels: Tensor, batch: int = 500) -> list[Reading]:
        """pixels (B, 3, H, W) in [-1, 1] -> B readings."""
        self.eval()
        return [reading for part in pixels.split(batch) for reading in pick_peaks(self(part.clamp(-1, 1)))]


def true_reading(scene: Scene) -> Reading:
    """What a reader without fault would say of the scene's picture."""
    seen = tuple(Seen(s.kind, s.color, s.size, s.x, s.y) for s in scene.shapes)
    return Reading(seen, scene.background)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def pick_peaks(maps: ReaderMaps) -> list[Reading]:
    """Local maxima of the heat within 5 x 5 cells: two centres are at least 4 cells apart by the scenes'
    rules."""
    heat = maps.heat.sigmoid()
    peak = (heat == F.max_pool2d(heat[:, None], 5, 1, 2)[:, 0]) & (heat > _THRESHOLD)
    score, cell = torch.where(peak, heat, 0.0).flatten(1).topk(MOST_SHAPES)  # (B, M)
    at = cell[:, None]
    offset = maps.offset.flatten(2).gather(2, at.expand(-1, 2, -1))  # (B, 2, M)
    x = ((cell % GRID + 0.5 + offset[:, 0]) / GRID).tolist()
    y = ((cell // GRID + 0.5 + offset[:, 1]) / GRID).tolist()
    classes = [
        m.flatten(2).gather(2, at.expand(-1, m.shape[1], -1)).argmax(1).tolist()
        for m in (maps.kind, maps.color, maps.size)
    ]  # three times B x M
    grounds = [tuple(BACKGROUNDS)[i] for i in maps.background.argmax(1).tolist()]
    readings = []
    for b, kept in enumerate((score > 0).sum(1).tolist()):
        seen = []
        for m in range(kept):
            kind, color, size = (names[c[b][m]] for names, c in zip(_NAMES, classes, strict=True))
            seen.append(Seen(kind, color, size, x[b][m], y[b][m]))
        readings.append(Reading(tuple(seen), grounds[b]))
    return readings
