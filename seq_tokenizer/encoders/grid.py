"""Tokens that belong to places: a Q-Former in which each query reads its own cell of the picture.

The sequence is one of the given orders of those cells. Layers, weights and FLOPs are those of qformer.py, so that two
tokenizers differ in the order alone. Shapes: B images, n patches, C cells, K latents.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from seq_tokenizer.encoders.patches import PatchConfig
from seq_tokenizer.encoders.qformer import QFormerConfig, QFormerEncoder
from seq_tokenizer.orders.grid import ORDERS, OrderName
from seq_tokenizer.shape import Positive, TokenizerShape
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.layers.blocks import causal_mask


class GridConfig(PatchConfig):
    """Which cells the picture has, and which comes first."""

    kind: Literal["grid"] = "grid"
    order: OrderName = "raster"
    seed: Annotated[int, Field(ge=0)] = 0  # of the order `random`
    grid: tuple[Positive, Positive] | None = None  # rows and columns of cells; None: the squarest that fits

    def cells(self, shape: TokenizerShape, features: tuple[int, int] | None) -> tuple[int, int]:
        """Rows and columns of cells. `features`: those that a bottleneck reads as a whole, in place of K tokens."""
        side = shape.image_size // shape.patch_size
        patches = f"the {side} x {side} patches of a picture"
        if features is not None:
            if self.grid not in (None, features) or self.order != "raster":
                raise ConfigError(
                    f"this bottleneck reads {features[0]} x {features[1]} features and lays out the sequence itself; "
                    "leave encoder.grid and encoder.order out"
                )
            return features
        if self.grid is None:
            return _squarest(shape.num_latents, side)
        rows, columns = self.grid
        if side % rows or side % columns:
            raise ConfigError(f"encoder.grid={rows} x {columns} does not divide {patches}")
        if rows * columns != shape.num_latents:
            raise ConfigError(
                f"encoder.grid={rows} x {columns} has {rows * columns} cells, num_latents={shape.num_latents}; "
                "each token is one cell"
            )
        return rows, columns


class GridEncoder(QFormerEncoder):
    """A Q-Former whose query i attends to the patches of its own cell only, and to queries of earlier cells.

    With `features` no cell comes first: all see each other, row by row, whatever prefix is asked for.
    """

    def __init__(self, config: GridConfig, shape: TokenizerShape, features: tuple[int, int] | None = None) -> None:
        rows, columns = config.cells(shape, features)
        super().__init__(
            QFormerConfig(stem_channels=config.stem_channels), shape.model_copy(update={"num_latents": rows * columns})
        )
        self.cells, self.ordered = (rows, columns), features is None
        self.order = ORDERS[config.order](rows, columns, config.seed)

    def sees_queries(self, count: int, device: torch.device) -> Tensor | None:
        return causal_mask(count, device) if self.ordered else None

    def sees_patches(self, count: int, rows: int, columns: int, device: torch.device) -> Tensor:
        """(count, n) bool: token i sees the patches of cell order[i]."""
        return cell_patches(self.cells, rows, columns).to(device)[self.order[:count]]


def cell_patches(cells: tuple[int, int], rows: int, columns: int) -> Tensor:
    """(C, n) bool: which of rows x columns patches lie in each cell; shared out evenly where they do not divide."""
    if rows < cells[0] or columns < cells[1]:
        raise DataError(
            f"a picture of {rows} x {columns} patches is smaller than the {cells[0]} x {cells[1]} cells that this "
            "tokenizer cuts it into"
        )
    row, column = torch.arange(rows) * cells[0] // rows, torch.arange(columns) * cells[1] // columns
    owner = (row[:, None] * cells[1] + column).flatten()
    return owner == torch.arange(cells[0] * cells[1])[:, None]


def _squarest(count: int, side: int) -> tuple[int, int]:
    """rows <= columns with rows * columns = count, both divisors of `side`, as near to a square as there is."""
    divisors = [n for n in range(1, side + 1) if side % n == 0]
    for rows in range(math.isqrt(count), 0, -1):
        if rows in divisors and count % rows == 0 and count // rows in divisors:
            return rows, count // rows
    possible = sorted({rows * columns for rows in divisors for columns in divisors})
    raise ConfigError(
        f"num_latents={count} tokens are no grid of cells of the {side} x {side} patches of a picture; "
        f"choose one of {', '.join(map(str, possible))}"
    )
