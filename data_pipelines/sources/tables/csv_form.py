"""How a CSV file is written: its divider, its line ends, its quoting. Read from its head, but for the quoting.

Tabs divide a .tsv; any other file is divided by the first of , ; tab | that its header holds outside quotes. Where the
first line is a row, commas may be text: the last of , ; | tab that makes as many cells of it as there are columns.
Where every divider of the first line is followed by a space, spaces after dividers belong to no cell. A file without a
single line feed at its head has carriage returns as line ends.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from seqtok_core.foundation.errors import DataError

Quoting = Literal["minimal", "none", "backslash"]
BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_CELL = 1 << 27  # characters; the default of 131,072 refuses long texts
_DIVIDERS = ",;\t|"
_HEAD = 1 << 20  # bytes in which a line must end
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True)
class CsvForm:
    """`quoting`: minimal, a cell may stand in quotes and doubles those inside it; backslash, it has a backslash before
    them; none, a quote is a character like any other and every line is a row."""

    divider: str
    quoting: Quoting = "minimal"
    line_end: bytes = b"\n"
    spaced: bool = False  # a space follows each divider

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Rows of cells. Strict: raises csv.Error where a row does not fit the form."""
        csv.field_size_limit(_LONGEST_CELL)
        options: dict[str, Any] = {"escapechar": "\\"} if self.quoting == "backslash" else {}
        options |= {"quoting": csv.QUOTE_NONE} if self.quoting == "none" else {}
        return csv.reader(lines, delimiter=self.divider, skipinitialspace=self.spaced, strict=True, **options)

    def cells(self, text: str) -> list[str]:
        """The cells of one row. Raises csv.Error where it does not fit the form."""
        line = text.rstrip("\r\n")
        if self._is_plain(line) and "\r" not in line and "\n" not in line:
            cells = line.split(self.divider)
            return [cell.lstrip(" ") for cell in cells] if self.spaced else cells
        return next(self.reader(io.StringIO(text, newline="\n")), [])

    def _is_plain(self, line: str) -> bool:
        """Whether dividers alone make its cells."""
        return self.quoting == "none" or ('"' not in line and (self.quoting == "minimal" or "\\" not in line))

    def lines(self, stream: IO[bytes]) -> Iterator[bytes]:
        """The rest of a file by lines, each with its end."""
        if self.line_end == b"\n":
            yield from stream
            return
        rest = b""
        while block := stream.read(_HEAD):
            *whole, rest = (rest + block).split(self.line_end)
            yield from (line + self.line_end for line in whole)
        if rest:
            yield rest


def read_form(path: Path, columns: int = 0) -> tuple[CsvForm, int, str]:
    """(form with quoting minimal, offset of the first line, that line). `columns`: how many there are where no header
    names them. Raises DataError when its head is not UTF-8."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if head.startswith(_UTF16):
        raise DataError(f"{path}: is UTF-16; write it as UTF-8 (iconv -f utf-16 -t utf-8)")
    begin = len(BOM) if head.startswith(BOM) else 0
    line_end = b"\r" if b"\r" in head and b"\n" not in head else b"\n"
    first = head[begin:].partition(line_end)[0]
    header = first.decode("utf-8", "replace") if columns else decode_header(first, path)
    plain = _QUOTED.sub("", header)
    fitting = [d for d in "\t|;," if plain.count(d) + 1 == columns] if columns > 1 else []
    divider = next((d for d in (*fitting, *_DIVIDERS) if d in plain), ",")
    divider = "\t" if path.suffix.lower() == ".tsv" else divider
    names = plain.split(divider)[1:]
    spaced = bool(names) and all(name.startswith(" ") for name in names)
    return CsvForm(divider, "minimal", line_end, spaced), begin, header


def decode_header(text: bytes, path: Path) -> str:
    """Raises DataError when it is not UTF-8."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path}: its header is not UTF-8; convert the file (iconv -t utf-8)") from None
