"""The default eye of pictures with labels: a small convolutional network, trained by the judge on the training split.

It names the labels of a picture, and its features are what Fréchet distances are measured in. Where the same network
taught a contestant, or where its labels are what a contestant was taught, that is to be said beside the figure.
Shapes: B pictures, F features, C classes of a label.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipelines.samples import to_model

_SIDE = 32  # pixels that it looks at, so that one network judges pictures of any size
_GROUPS = 8


class LabelEye(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> the logits of every label, by name."""

    def __init__(self, classes: Mapping[str, int], width: int = 64) -> None:
        super().__init__()
        self.classes = dict(classes)
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.stages = nn.ModuleList([_Stage(width * 2**i, width * 2 ** (i + 1)) for i in range(2)])
        self.norm = nn.GroupNorm(_GROUPS, 4 * width)
        self.names = nn.ModuleDict({name: nn.Linear(4 * width, count) for name, count in self.classes.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        seen = self._seen(pixels).mean((2, 3))
        return {name: head(seen) for name, head in self.names.items()}

    def _seen(self, pixels: Tensor) -> Tensor:
        """-> (B, 4 width, 8, 8)."""
        if pixels.shape[-2:] != (_SIDE, _SIDE):
            pixels = F.interpolate(pixels, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        h = self.stem(pixels)
        for stage in self.stages:
            h = stage(h)
        return F.silu(self.norm(h))

    @torch.no_grad()
    def features(self, pictures: Tensor, batch: int = 250) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, F) float32: means over the picture."""
        self.eval()
        return torch.cat([self._seen(to_model(part)).mean((2, 3)) for part in pictures.split(batch)])

    @torch.no_grad()
    def read(self, pictures: Tensor, batch: int = 250) -> dict[str, Tensor]:
        """(B, 3, H, W) uint8 -> label -> (B,) int64, the class that is likeliest."""
        self.eval()
        parts = [self(to_model(part)) for part in pictures.split(batch)]
        return {name: torch.cat([part[name].argmax(1) for part in parts]) for name in self.classes}


class _Stage(nn.Module):
    """Two residual convolutions; half the side, twice the channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(_GROUPS, channels) for _ in range(2)])
        self.convolutions = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)])
        self.down = nn.Conv2d(channels, out, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(F.silu(norm(h)))
        return self.down(x + h)
