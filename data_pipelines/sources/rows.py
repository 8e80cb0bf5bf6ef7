"""Records by number: the common face of tables, lists of files and caption files. Nothing is kept per record
but offsets or packed bytes, and files are opened where they are read, so that rows can be pickled to workers.

JSON Lines by stated rules: UTF-8, with or without a byte order mark; empty lines are no records; a line that is not a
JSON object is a bad sample, named by file and line.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.packed import Packed, Spans, parts_of, starts_of

Record = Mapping[str, Any]
_BOM = b"\xef\xbb\xbf"
_LOOKED_AT = 1000  # lines whose fields are taken for those of the file


class Rows(Protocol):
    @property
    def block(self) -> int:
        """Records that a shuffle should keep together: reading one of them reads others. 1 of most."""

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

    @property
    def block(self) -> int:
        return max(part.block for part in self.parts)

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
    aside: Mapping[str, int] = field(default_factory=dict)  # what of it became no record, by what it is
    unit: str = "image"  # what a record is, for messages
    order: str = ""  # how captions became levels, where the records do not say
    block: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.packed)

    def columns(self) -> tuple[str, ...]:
        return self.names

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for index in range(start, stop):
            yield json.loads(self.packed[index])

    def place(self, index: int) -> str:
        return f"{self.name} {self.unit} {index + 1}"

    def identity(self) -> dict[str, Any]:
        aside = {"left_aside": dict(self.aside)} if self.aside else {}
        return {"records": len(self), "sha256": self.digest, **aside}


@dataclass(frozen=True, eq=False)
class JsonLines:
    spans: Spans  # each record
    lines: NDArray[np.int64] | None  # (N,) number of its line; None: record i lies on line i + 1
    digest: str
    block: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.spans)

    def columns(self) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for record in self.read(0, min(len(self), _LOOKED_AT), ()):
            names.update(dict.fromkeys(() if isinstance(record, Bad) else record))
        return tuple(names)

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for index, line in enumerate(self.spans.read(start, stop), start):
            record = _parse(line)
            yield record if isinstance(record, dict) else Bad(self.place(index), *record)

    def place(self, index: int) -> str:
        line = index + 1 if self.lines is None else int(self.lines[index])
        return f"{self.spans.path.name} line {line}"

    def identity(self) -> dict[str, Any]:
        return {"records": len(self), "sha256": self.digest}


def scan_jsonl(path: Path) -> JsonLines:
    """One pass over the file. Raises DataError when it cannot be read or holds nothing."""
    starts, numbers, position, digest = array("q"), array("q"), 0, hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                digest.update(line)
                if line.removeprefix(_BOM if number == 1 else b"").strip():
                    starts.append(position)
                    numbers.append(number)
                position += len(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not starts:
        raise DataError(f"{path}: holds no records")
    gaps = numbers[-1] != len(numbers)
    starts.append(position)
    lines = np.array(numbers, dtype=np.int64) if gaps else None
    return JsonLines(Spans(path, np.array(starts, dtype=np.int64)), lines, digest.hexdigest())


def _parse(line: bytes) -> dict[str, Any] | tuple[str, str]:
    """The record, or (reason, detail). Empty lines that follow a record are white space to JSON."""
    try:
        record = json.loads(line.removeprefix(_BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        return "not UTF-8", f"byte {error.start} of the line"
    except (ValueError, RecursionError) as error:
        return "not JSON", str(error)[:200]
    return record if isinstance(record, dict) else ("not a record", type(record).__name__)
