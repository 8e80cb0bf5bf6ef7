"""CSV and TSV: one pass finds where each record begins, also with line breaks inside quotes; read when needed.

Stated rules: the first record names the columns. Tabs divide a .tsv; a .csv is divided by the first of , ; tab |
that its header holds. Quotes as Python's strict `csv` reads them. UTF-8, with or without a byte order mark. Empty
cells count as absent; everything else is text. Empty lines are no records. A row with more or fewer cells than
the header, with stray quotes or not in UTF-8 is a bad sample, named by file and row (1 = first after the header).
"""

from __future__ import annotations

import csv
import hashlib
import io
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad
from data_pipelines.sources.rows import Record
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.packed import read_spans

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_CELL = 1 << 27  # characters; the default of 131,072 refuses long texts
_DIVIDERS = ",;\t|"


@dataclass(frozen=True, eq=False)
class CsvRows:
    path: Path
    header: tuple[str, ...]
    divider: str
    starts: NDArray[np.int64]  # (N + 1,) byte offset of each record, and the end
    digest: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    def columns(self) -> tuple[str, ...]:
        return self.header

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for index, raw in enumerate(read_spans(self.path, self.starts, start, stop), start):
            record = self._parse(raw)
            yield record if isinstance(record, dict) else Bad(self.place(index), *record)

    def place(self, index: int) -> str:
        return f"{self.path.name} row {index + 1}"

    def identity(self) -> dict[str, Any]:
        return {"records": len(self), "sha256": self.digest}

    def _parse(self, raw: bytes) -> dict[str, str | None] | tuple[str, str]:
        """The record, or (reason, detail)."""
        try:
            cells = next(_reader(io.StringIO(raw.decode("utf-8"), newline="\n"), self.divider))
        except UnicodeDecodeError as error:
            return "not UTF-8", f"byte {error.start} of the row; iconv -t utf-8 mends a file"
        except (csv.Error, StopIteration) as error:
            return "row cannot be read", str(error)
        if len(cells) != len(self.header):
            return "ragged row", f"{len(cells)} cells, the header has {len(self.header)}"
        return {name: cell or None for name, cell in zip(self.header, cells, strict=True)}


def scan_csv(path: Path) -> CsvRows:
    """One pass over the file. Raises DataError when it has no header, no records or a quote that never ends."""
    starts, digest = array("q"), hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            head = _head(stream.readline(), path)
            divider = "\t" if path.suffix.lower() == ".tsv" else next((d for d in _DIVIDERS if d in head), ",")
            stream.seek(len(_BOM) if stream.seek(0) == 0 and stream.read(3) == _BOM else 0)
            digest.update(divider.encode())
            header, end = _scan(stream, divider, starts, digest, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not starts:
        raise DataError(f"{path}: holds no records")
    starts.append(end)
    return CsvRows(path, header, divider, np.array(starts, dtype=np.int64), digest.hexdigest())


def _scan(stream: Any, divider: str, starts: array[int], digest: Any, path: Path) -> tuple[tuple[str, ...], int]:
    """Appends the offset of every record. Latin-1 maps each byte to one character: no text can fail here."""
    position = stream.tell()

    def lines() -> Iterator[str]:
        nonlocal position
        for line in stream:
            digest.update(line)
            position += len(line)
            yield line.decode("latin-1")

    reader = _reader(lines(), divider)
    header: tuple[str, ...] = ()
    while True:
        first = position
        try:
            cells = next(reader)
        except StopIteration:
            return header, position
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(
                    f'{path}: the quote (") that row {len(starts) + 1} opens never ends; mend that row'
                ) from None
            cells = [""]  # found again, and named, when it is read
        if cells and not header:
            header = _columns(cells, path)
        elif cells:
            starts.append(first)


def _head(line: bytes, path: Path) -> str:
    if line.startswith(_UTF16):
        raise DataError(f"{path}: is UTF-16; write it as UTF-8 (iconv -f utf-16 -t utf-8)")
    try:
        return line.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: its header is not UTF-8; convert the file (iconv -t utf-8)") from None


def _columns(cells: Sequence[str], path: Path) -> tuple[str, ...]:
    try:
        names = tuple(cell.encode("latin-1").decode("utf-8").strip() for cell in cells)
    except UnicodeDecodeError:
        raise DataError(f"{path}: its header is not UTF-8; convert the file (iconv -t utf-8)") from None
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: two columns are called {shown(twice[0])!r}; rename one")
    return names


def _reader(lines: Iterator[str] | io.StringIO, divider: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)
    return csv.reader(lines, delimiter=divider, strict=True)
