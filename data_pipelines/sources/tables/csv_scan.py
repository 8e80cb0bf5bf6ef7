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
from data_pipelines.tars.names import IMAGE_EXTENSIONS
from seqtok_core.foundation.errors import DataError, shown

_NO_HEADER = "where its first line is a row, name the columns with `columns`"
_KEPT_ROWS, _KEPT_LINES, _KEPT_BYTES = 200, 20, 1000  # of rows over several lines: what of them is judged later
_SAMPLED = 1000  # rows from which the kinds of the columns are known
_CODE = re.compile(r"\S*[0-9]\S*")  # as ids are
MOST = 0.9  # share of its cells that make a column one of files, numbers, ids or addresses
_PICTURE = re.compile(rf"\.({'|'.join(IMAGE_EXTENSIONS)})$", re.IGNORECASE)
_PICTURE_PATH = re.compile(rf"[/0-9][^/]*{_PICTURE.pattern}", re.IGNORECASE)
_LONE_QUOTE = re.compile(r'(?<!\\)"')
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
    proper: int = 0  # cells of one line that only a quoting writer makes: with a divider or doubled quotes inside
    doubled: int = 0  # cells with doubled quotes, none after a backslash: no writer of backslashes makes them
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


def scan_rows(path: Path, form: CsvForm, begin: int, names: Sequence[str] = ()) -> CsvScan:
    """`names` of the columns where the file has no header. Raises DataError when the file cannot be read."""
    try:
        with open(path, "rb") as stream:
            stream.seek(begin)
            return _Scanner(path, form, begin).scan(form.lines(stream), tuple(name.encode() for name in names))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


class _Scanner:
    def __init__(self, path: Path, form: CsvForm, begin: int) -> None:
        self._path, self._form, self._position = path, form, begin
        self._digest = hashlib.sha256(form.divider.encode())
        self._traces = QuoteTraces()
        self._sampled = 0
        self._lines: Iterator[bytes] = iter(())
        self._kept: list[str] = []  # first lines of a row with quotes
        self._given = 0  # lines of it that the reader has

    def scan(self, stream: Iterator[bytes], header: tuple[bytes, ...]) -> CsvScan:
        """Without a `header` the first line is it."""
        self._lines = self._counted(stream)
        reader, starts, traces = self._form.reader(self._fed()), array("q"), self._traces
        divider, quotes = self._form.divider.encode(), self._form.quoting != "none"
        escapes = self._form.quoting == "backslash"
        columns = len(header)
        traces.kinds = [Counter() for _ in header]
        for line in self._lines:
            first = self._position - len(line)
            if not line.strip(b"\r\n"):
                continue
            if not header:
                header = self._header(line, reader)
                columns = len(header)
                continue
            starts.append(first)
            if (quotes and b'"' in line) or (escapes and b"\\" in line):
                self._quoted(line, reader, len(starts), columns)
            else:
                traces.ragged += line.count(divider) + 1 != columns
                if self._sampled < _SAMPLED:
                    self._note_kinds(line.decode("latin-1").strip("\r\n").split(self._form.divider))
        traces.rows = len(starts)
        starts.append(self._position)
        return CsvScan(header, starts, self._digest.hexdigest(), traces)

    def _counted(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        for line in stream:
            self._digest.update(line)
            self._position += len(line)
            yield line

    def _fed(self) -> Iterator[str]:
        """The line of a row that is kept, then those that the reader asks for; the first of these are kept too."""
        while True:
            self._given += 1
            if self._given == 1:
                yield self._kept[0]
                continue
            line = next(self._lines, None)
            if line is None:
                return
            text = line.decode("latin-1")
            if len(self._kept) <= _KEPT_LINES:
                self._kept.append(text[:_KEPT_BYTES])
            yield text

    def _parse(self, line: bytes, reader: Iterator[list[str]]) -> list[str]:
        self._kept, self._given = [line.decode("latin-1")], 0
        return next(reader)

    def _header(self, line: bytes, reader: Iterator[list[str]]) -> tuple[bytes, ...]:
        self._traces.quoted_header = b'"' in line
        try:
            cells = self._parse(line, reader)
        except csv.Error as error:
            raise DataError(f"{self._path}: its header cannot be read ({error}); {_NO_HEADER}") from None
        self._traces.kinds = [Counter() for _ in cells]
        return tuple(cell.encode("latin-1") for cell in cells)

    def _quoted(self, line: bytes, reader: Iterator[list[str]], number: int, columns: int) -> None:
        """A row that begins with a line with quotes; takes the lines that belong to it."""
        traces, error, cells = self._traces, "", list[str]()
        try:
            cells = self._parse(line, reader)
        except csv.Error as reason:
            error = str(reason)
            traces.broken += 1
            traces.endless = number if "end of data" in error else 0
        if not error:
            traces.ragged += len(cells) != columns
        traces.doubled += any(_LONE_QUOTE.search(cell) and cell not in self._kept[0] for cell in cells)
        traces.escaped += any("\\" in text and _escapes(text, self._form.divider) for text in self._kept)
        if self._sampled < _SAMPLED:
            self._note_kinds(cells)
        if self._given == 1:
            self._note_quotes(cells)
        elif len(self._kept) > 1:
            self._note_lines(cells, number, columns)

    def _note_lines(self, cells: Sequence[str], number: int, columns: int) -> None:
        """A row over several lines; with doubled quotes inside quotes it has swallowed no others."""
        doubled = any('"' in cell for cell in cells)
        if doubled or all(text.count(self._form.divider) + 1 != columns for text in self._kept[1:]):
            self._traces.wrapped += 1
        elif len(self._traces.long) < _KEPT_ROWS:
            self._traces.long.append(LongRow(number, tuple(self._kept)))

    def _note_quotes(self, cells: Sequence[str]) -> None:
        for cell in cells:
            if self._form.divider in cell or ('"' in cell and cell not in self._kept[0]):
                self._traces.proper += 1
            elif '"' in cell and cell.count('"') != cell.count('\\"'):
                self._traces.bare += 1

    def _note_kinds(self, cells: Sequence[str]) -> None:
        if len(cells) == len(self._traces.kinds):
            self._sampled += 1
            for seen, cell in zip(self._traces.kinds, cells, strict=True):
                seen[kind_of_cell(cell)] += cell != "" and "\n" not in cell


def kind_of_cell(cell: str) -> str:
    """What a cell looks like; a column whose cells are all of one kind but text tells rows from other lines."""
    cell = cell.strip(' "\r\n')
    if "://" in cell:
        return "address"
    if cell.isdigit():
        return "number"
    return "file" if _FILE.search(cell) else "code" if _CODE.fullmatch(cell) else "text"


def is_no_name(cell: str, kinds: Counter[str]) -> bool:
    """Whether what stands in place of a column's name is an address, or the path of a picture as those below it.
    `kinds` of these cells."""
    if "://" in cell or _PICTURE_PATH.search(cell):
        return True
    return _PICTURE.search(cell) is not None and kinds["file"] > MOST * kinds.total()


def column_names(header: Sequence[bytes], path: Path) -> tuple[str, ...]:
    """Raises DataError when two are equal or one is not UTF-8."""
    names = tuple(decode_header(cell, path).strip() for cell in header)
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise DataError(f"{path}: two columns are called {shown(twice[0])!r}; rename one")
    return names


def _escapes(text: str, divider: str) -> bool:
    """Whether a backslash stands before a quote that does not end a cell."""
    after = (text[match.end() : match.end() + 1] for match in re.finditer(r'\\"', text))
    return any(following not in ("", divider, "\r", "\n") for following in after)
