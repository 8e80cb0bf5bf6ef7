"""The reader of glyphs: a small network that names the character in every cell of a page, or says that it is empty.

It always looks at pages of 96 pixels, so that one reader judges pictures of any size. What it says of a cell depends
on the cell and a few pixels around it alone: it cannot guess from other cells.
Shapes: B pages, N = 64 cells in reading order, A characters; class A is the empty cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipelines.glyphs import CELLS, PAGE_SIZE, Page
from data_pipelines.samples import to_model


class GlyphReader(nn.Module):
    """(B, 3, H, W) pixels in [-1, 1] -> (B, N, A + 1) logits."""

    def __init__(self, alphabet_size: int, width: int = 64) -> None:
        super().__init__()
        self.alphabet_size = alphabet_size
        self.stem = nn.Sequential(nn.PixelUnshuffle(4), _conv(48, width), _conv(width, width))  # 24 x 24
        self.cells = _conv(width, 2 * width, stride=3, padding=0)  # 8 x 8
        self.head = nn.Conv2d(2 * width, alphabet_size + 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.cells(self.stem(at_page_size(pixels))))
        return logits.flatten(2).transpose(1, 2)

    @torch.no_grad()
    def characters(self, pictures: Tensor, batch: int = 256) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, N) int64, the likeliest of each cell; A where it is empty."""
        self.eval()
        return torch.cat([self(to_model(part)).argmax(-1) for part in pictures.split(batch)])


def at_page_size(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, 96, 96), as the reader looks at pages of any size."""
    if pixels.shape[-2:] == (PAGE_SIZE, PAGE_SIZE):
        return pixels
    return F.interpolate(pixels, (PAGE_SIZE, PAGE_SIZE), mode="bilinear", antialias=True)


def characters_of(pages: Sequence[Page], alphabet_size: int) -> Tensor:
    """What a reader without fault would say: (B, N) int64."""
    truth = torch.full((len(pages), CELLS), alphabet_size)
    for row, page in enumerate(pages):
        truth[row, list(page.cells)] = torch.tensor(page.characters)
    return truth


def _conv(inputs: int, outputs: int, stride: int = 1, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
