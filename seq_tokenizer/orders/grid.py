"""Fixed orders of a grid of cells, the peers of the learned one.

An order is a list of cells, each counted row by row (cell = row * columns + column): entry i is the cell that token i
tells of. Every cell stands in it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from seqtok_core.layers.randomness import Draws

OrderName = Literal[
    "raster",
    "reversed_raster",
    "column_major",
    "snake",
    "spiral_in",
    "spiral_out",
    "z_order",
    "corner_distance",
    "random",
]


def raster(rows: int, columns: int, seed: int = 0) -> list[int]:
    """Row by row from the top left, as one reads."""
    return list(range(rows * columns))


def reversed_raster(rows: int, columns: int, seed: int = 0) -> list[int]:
    """Row by row from the bottom right."""
    return raster(rows, columns)[::-1]


def column_major(rows: int, columns: int, seed: int = 0) -> list[int]:
    """Column by column from the top left."""
    return _by(lambda row, column: (column, row), rows, columns)


def snake(rows: int, columns: int, seed: int = 0) -> list[int]:
    """Row by row, every second one backwards: neighbours in the sequence touch in the picture."""
    return _by(lambda row, column: (row, -column if row % 2 else column), rows, columns)


def spiral_in(rows: int, columns: int, seed: int = 0) -> list[int]:
    """Along the border from the top left, clockwise, ring after ring to the centre."""
    ring = [raster(rows, columns)[row * columns : (row + 1) * columns] for row in range(rows)]
    order: list[int] = []
    while ring:
        order += ring[0]
        ring = [list(side) for side in zip(*ring[1:], strict=True)][::-1]  # what is left, turned by a quarter
    return order


def spiral_out(rows: int, columns: int, seed: int = 0) -> list[int]:
    """`spiral_in` backwards: from the centre, ring after ring, to the top left."""
    return spiral_in(rows, columns)[::-1]


def z_order(rows: int, columns: int, seed: int = 0) -> list[int]:
    """Quarter by quarter, each of them quarter by quarter (Morton 1966): the bits of row and column interleaved.

    Where a side is no power of two, cells keep the order that they have in the square that holds the grid.
    """
    bits = range(max(rows, columns).bit_length())
    return _by(lambda row, column: sum(((row >> b & 1) * 2 + (column >> b & 1)) << 2 * b for b in bits), rows, columns)


def corner_distance(rows: int, columns: int, seed: int = 0) -> list[int]:
    """By Euclidean distance from the top-left cell; of equal ones the upper first."""
    return _by(lambda row, column: (row**2 + column**2, row), rows, columns)


def random_order(rows: int, columns: int, seed: int = 0) -> list[int]:
    """One order for all pictures, drawn by `seed`."""
    nobody = torch.zeros(1, dtype=torch.int64, device="cpu")
    return Draws(seed, nobody, nobody).uniform("grid order", (rows * columns,))[0].argsort(stable=True).tolist()


# (rows, columns, seed) -> cells; only `random` asks for the seed.
ORDERS: dict[OrderName, Callable[[int, int, int], list[int]]] = {
    "raster": raster,
    "reversed_raster": reversed_raster,
    "column_major": column_major,
    "snake": snake,
    "spiral_in": spiral_in,
    "spiral_out": spiral_out,
    "z_order": z_order,
    "corner_distance": corner_distance,
    "random": random_order,
}


def places(order: Sequence[int]) -> list[int]:
    """The inverse of an order: entry c is the place in the sequence of cell c."""
    return sorted(range(len(order)), key=order.__getitem__)


def _by(key: Callable[[int, int], Any], rows: int, columns: int) -> list[int]:
    return sorted(range(rows * columns), key=lambda cell: key(*divmod(cell, columns)))
