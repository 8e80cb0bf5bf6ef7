"""One pass over a CSV file: where each row begins, and what its quotes look like.

Only lines with a quote are parsed; the others are rows as they stand. Latin-1 maps each byte to one character: no
text can fail here.
"""

from __future__ import annotations

import csv
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.sources.tables.csv_form import CsvForm, decode_header
from seqtok_core.foundation.errors import DataError

_KEPT_ROWS, _KEPT_LINES, _KEPT_BYTES = 200, 20, 1000  # of rows over several lines: what of them is judged later
_SAMPLED = 1000  # rows from which the kinds of the columns are known
_FILE = re.compile(r"\S\.[A-Za-z][A-Za-z0-9]{1,4}$")


@dataclass(frozen=True)
class LongRow:
    """A row over several lines."""

    number: int  # of the row, 1 = first after the header
    lines: tuple[str, ...]  # its first lines


@dataclass
class QuoteTraces:
    """What quotes look like in a file that was read in one form."""

    rows: int = 0
    ragged: int = 0  # rows without as many cells as the header
    quoted_header: bool = False
    broken: int = 0  # rows that the form cannot read
    first_broken: int = 0  # number of the first one
    proper: int = 0  # cells of one line that only a quoting writer makes: with a divider or doubled quotes inside
    bare: int = 0  # cells with quotes and none around them, where a writer that quotes would have doubled them
    escaped: int = 0  # rows with backslashes before quotes that end no cell
    wrapped: int = 0  # rows over several lines none of which could be a row
    long: list[LongRow] = field(default_factory=list)  # rows over several lines, some of which could be rows
    endless: int = 0  # number of the row whose quote the file does not end
    kinds: list[Counter[str]] = field(default_factory=list)  # by column: kinds of the first rows' cells of one line


@dataclass(frozen=True)
class CsvScan:
    header: tuple[bytes, ...]
    starts: array[int]  # offset of each row, and the end of the file
    digest: str
    traces: QuoteTraces


def scan_rows(path: Path, form: CsvForm, begin: int) -> CsvScan:
    """Raises DataError when the file cannot be read."""
    try:
        with open(path, "rb") as stream:
            stream.seek(begin)
            return _Scanner(path, form, begin).scan(form.lines(stream))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


class _Scanner:
    def __init__(self, path: Path, form: CsvForm, begin: int) -> None:
        self._path, self._form, self._position = path, form, begin
        self._marks = (b'"', b"\\") if form.quoting == "backslash" else () if form.quoting == "none" else (b'"',)
        self._digest = hashlib.sha256(form.divider.encode())
        self._divider = form.divider.encode()
        self._traces = QuoteTraces()

    def scan(self, stream: Iterator[bytes]) -> CsvScan:
        header: tuple[bytes, ...] = ()
        starts, lines, traces = array("q"), self._counted(stream), self._traces
        for line in lines:
            first = self._position - len(line)
            if not line.strip(b"\r\n"):
                continue
            if not header:
                header = self._header(line, lines)
                continue
            starts.append(first)
            if any(mark in line for mark in self._marks):
                self._quoted(line, lines, len(starts), len(header))
            else:
                traces.ragged += line.count(self._divider) + 1 != len(header)
                self._note_kinds(line.decode("latin-1").strip("\r\n").split(self._form.divider))
        traces.rows = len(starts)
        starts.append(self._position)
        return CsvScan(header, starts, self._digest.hexdigest(), traces)

    def _counted(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        for line in stream:
            self._digest.update(line)
            self._position += len(line)
            yield line

    def _header(self, line: bytes, lines: Iterator[bytes]) -> tuple[bytes, ...]:
        text = [line.decode("latin-1")]
        self._traces.quoted_header = '"' in text[0]
        try:
            cells = next(self._form.reader(_then(text, lines)))
        except csv.Error as error:
            raise DataError(f"{self._path}: its header cannot be read ({error})") from None
        self._traces.kinds = [Counter() for _ in cells]
        return tuple(cell.encode("latin-1") for cell in cells)

    def _quoted(self, line: bytes, lines: Iterator[bytes], number: int, columns: int) -> None:
        """A row that begins with a line with quotes; takes the lines that belong to it."""
        traces, kept, error = self._traces, [line.decode("latin-1")], ""
        begin, cells = self._position, list[str]()
        try:
            cells = next(self._form.reader(_then(kept, lines)))
        except csv.Error as reason:
            error = str(reason)
            traces.broken += 1
            traces.first_broken = traces.first_broken or number
        traces.endless = number if "end of data" in error else 0
        traces.escaped += any(_escapes(text, self._form.divider) for text in kept)
        if self._position > begin:
            doubled = any('"' in cell for cell in cells)  # inside quotes: no row is lost there
            if not doubled and any(text.count(self._form.divider) + 1 == columns for text in kept[1:]):
                traces.long += [LongRow(number, tuple(kept))] if len(traces.long) < _KEPT_ROWS else []
            else:
                traces.wrapped += 1
        if not error:
            traces.ragged += len(cells) != columns
            self._note_kinds(cells)
            if self._position == begin:
                self._note_quotes(cells, kept[0])

    def _note_quotes(self, cells: Sequence[str], text: str) -> None:
        for cell in cells:
            if self._form.divider in cell or ('"' in cell and cell not in text):
                self._traces.proper += 1
            elif '"' in cell and cell.count('"') != cell.count('\\"'):
                self._traces.bare += 1

    def _note_kinds(self, cells: Sequence[str]) -> None:
        kinds = self._traces.kinds
        if len(cells) == len(kinds) and kinds[0].total() < _SAMPLED:
            for seen, cell in zip(kinds, cells, strict=True):
                seen[kind_of_cell(cell)] += cell != "" and "\n" not in cell


def kind_of_cell(cell: str) -> str:
    """What a cell looks like; a column whose cells are all of one kind but text tells rows from other lines."""
    cell = cell.strip(' "\r\n')
    if "://" in cell:
        return "address"
    return "number" if cell.isdigit() else "file" if _FILE.search(cell) else "text"


def column_names(header: Sequence[bytes], path: Path) -> tuple[str, ...]:
    """Raises DataError when two are equal or one is not UTF-8."""
    names = tuple(decode_header(cell, path).strip() for cell in header)
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise DataError(f"{path}: two columns are called {twice[0]!r}; rename one")
    return names


def _then(kept: list[str], lines: Iterator[bytes]) -> Iterator[str]:
    """The line that is kept, then those that the reader asks for; the first of these are kept too."""
    yield kept[0]
    for line in lines:
        text = line.decode("latin-1")
        if len(kept) <= _KEPT_LINES:
            kept.append(text[:_KEPT_BYTES])
        yield text


def _escapes(text: str, divider: str) -> bool:
    """Whether a backslash stands before a quote that does not end a cell."""
    after = (text[match.end() : match.end() + 1] for match in re.finditer(r'\\"', text))
    return any(following not in ("", divider, "\r", "\n") for following in after)
