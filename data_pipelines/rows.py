"""Records by number: the common face of tables, lists of files and caption files. Nothing is kept per record
but offsets or packed bytes, and files are opened where they are read, so that rows can be pickled to workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipelines.packed import Packed, parts_of, starts_of
from data_pipelines.sources import Bad

Record = Mapping[str, Any]


class Rows(Protocol):
    def __len__(self) -> int: ...

    def columns(self) -> tuple[str, ...]:
        """Names of the fields; of records without a fixed form, those of the first ones."""

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        """One item per record of [start, stop), in order, with at least `columns` where the record has them.

        Without `pictures`, bytes of pictures may be left out.
        """

    def place(self, index: int) -> str:
        """What the record is called in messages, e.g. "styles.csv row 17"."""

    def identity(self) -> dict[str, Any]:
        """JSON that changes when the records do; independent of where they are mounted."""


@dataclass(frozen=True, eq=False)
class JoinedRows:
    """Several files of records, one after another."""

    parts: tuple[Rows, ...]
    starts: NDArray[np.int64]  # (parts + 1,)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def columns(self) -> tuple[str, ...]:
        """Those that every part has."""
        common = set.intersection(*(set(part.columns()) for part in self.parts))
        return tuple(name for name in self.parts[0].columns() if name in common)

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for number, begin, end in parts_of(self.starts, start, stop):
            yield from self.parts[number].read(begin, end, columns, pictures)

    def place(self, index: int) -> str:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[number].place(index - int(self.starts[number]))

    def identity(self) -> dict[str, Any]:
        return {"files": [part.identity() for part in self.parts]}


def join_rows(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return JoinedRows(tuple(parts), starts_of(map(len, parts)))


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Records that had to be read all at once, kept as packed JSON."""

    name: str
    packed: Packed
    names: tuple[str, ...]
    digest: str  # sha256 of the file that they come from

    def __len__(self) -> int:
        return len(self.packed)

    def columns(self) -> tuple[str, ...]:
        return self.names

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for index in range(start, stop):
            yield json.loads(self.packed[index])

    def place(self, index: int) -> str:
        return f"{self.name} image {index + 1}"

    def identity(self) -> dict[str, Any]:
        return {"records": len(self), "sha256": self.digest}
