"""CSV and TSV: one pass finds where each record begins, also with line breaks inside quotes; read when needed.

Stated rules: the first record names the columns, unless the user does; csv_form.py says what divides them, quoting.py
how quotes are read. UTF-8, with or without a byte order mark. Empty cells count as absent; everything else is text.
Empty lines are no records. A row with more or fewer cells than the header, with stray quotes or not in UTF-8 is a bad
sample, named by file and row (1 = first after the header).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from data_pipelines.sources.base import Bad
from data_pipelines.sources.rows import Record
from data_pipelines.sources.tables.csv_form import CsvForm, Quoting, read_form
from data_pipelines.sources.tables.csv_scan import CsvScan, column_names, is_no_name, scan_rows
from data_pipelines.sources.tables.quoting import WAY_OUT, choose_quoting
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.packed import Spans

_NAME_THEM = "name the columns with `columns`, e.g. caption,file_name"


@dataclass(frozen=True, eq=False)
class CsvRows:
    spans: Spans  # each record
    header: tuple[str, ...]
    form: CsvForm
    digest: str
    named: bool = False  # the user has named the columns: the file has no header
    block: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.spans)

    def columns(self) -> tuple[str, ...]:
        return self.header

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for index, raw in enumerate(self.spans.read(start, stop), start):
            record = self._parse(raw)
            yield record if isinstance(record, dict) else Bad(self.place(index), *record)

    def place(self, index: int) -> str:
        return f"{self.spans.path.name} row {index + 1}"

    def identity(self) -> dict[str, Any]:
        odd: dict[str, str] = {"quoting": self.form.quoting} if self.form.quoting != "minimal" else {}
        odd |= {"spaces": "after dividers"} if self.form.spaced else {}
        odd |= {"columns": ",".join(self.header)} if self.named else {}
        return {"records": len(self), "sha256": self.digest, **odd}

    def _parse(self, raw: bytes) -> dict[str, str | None] | tuple[str, str]:
        """The record, or (reason, detail)."""
        try:
            cells = self.form.cells(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            return "not UTF-8", f"byte {error.start} of the row; iconv -t utf-8 mends a file"
        except csv.Error as error:
            return "row cannot be read", str(error)
        if len(cells) != len(self.header):
            return (
                "ragged row",
                f"{len(cells)} cells, {'columns are' if self.named else 'the header has'} {len(self.header)}",
            )
        return {name: cell or None for name, cell in zip(self.header, cells, strict=True)}


def scan_csv(path: Path, quoting: Literal["auto", Quoting] = "auto", names: Sequence[str] = ()) -> CsvRows:
    """One pass over the file, or one for each quoting in doubt. `names` of the columns where its first line is a row.

    Raises DataError when it has no header, no records, a quote that never ends or no clear quoting.
    """
    form, begin, _ = read_form(path, len(names))

    def scan(quoting: Quoting) -> CsvScan:
        return scan_rows(path, replace(form, quoting=quoting), begin, names)

    chosen, found = choose_quoting(path, form.divider, scan) if quoting == "auto" else (quoting, scan(quoting))
    if found.traces.endless:
        raise DataError(f'{path}: the quote (") that row {found.traces.endless} opens never ends; {WAY_OUT}')
    if len(found.starts) < 2:
        raise DataError(f"{path}: holds no records")
    header = column_names(found.header, path)
    spans = Spans(path, np.array(found.starts, dtype=np.int64))
    rows = CsvRows(spans, header, replace(form, quoting=chosen), found.digest, bool(names))
    _check_names(path, rows, found.traces.kinds)
    return rows


def _check_names(path: Path, rows: CsvRows, kinds: Sequence[Counter[str]]) -> None:
    """Raises DataError where the first line does not fit names that the user gave, or is no names where none are."""
    if not rows.named:
        value = next((name for name, seen in zip(rows.header, kinds, strict=True) if is_no_name(name, seen)), None)
        if value is not None:
            raise DataError(f"{path}: its first line is a row, not names of columns: {shown(value)}; {_NAME_THEM}")
        return
    first = next(rows.read(0, 1, ()))
    if isinstance(first, Bad) and first.reason == "ragged row":
        raise DataError(f"{path}: its first line has {first.detail}; {_NAME_THEM}")
    if not isinstance(first, Bad) and set(first.values()) == set(rows.header):
        raise DataError(f"{path}: its first line names these columns itself; leave out `columns`")
