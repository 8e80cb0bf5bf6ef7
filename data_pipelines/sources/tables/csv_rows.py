"""CSV and TSV: one pass finds where each record begins, also with line breaks inside quotes; read when needed.

Stated rules: the first record names the columns; csv_form.py says what divides them, quoting.py how quotes are read.
UTF-8, with or without a byte order mark. Empty cells count as absent; everything else is text. Empty lines are no
records. A row with more or fewer cells than the header, with stray quotes or not in UTF-8 is a bad sample, named by
file and row (1 = first after the header).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad
from data_pipelines.sources.rows import Record
from data_pipelines.sources.tables.csv_form import CsvForm, Quoting, read_form
from data_pipelines.sources.tables.csv_scan import CsvScan, column_names, scan_rows
from data_pipelines.sources.tables.quoting import WAY_OUT, choose_quoting
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.packed import read_spans


@dataclass(frozen=True, eq=False)
class CsvRows:
    path: Path
    header: tuple[str, ...]
    form: CsvForm
    starts: NDArray[np.int64]  # (N + 1,) byte offset of each record, and the end
    digest: str
    block: ClassVar[int] = 1

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
        odd: dict[str, str] = {"quoting": self.form.quoting} if self.form.quoting != "minimal" else {}
        odd |= {"spaces": "after dividers"} if self.form.spaced else {}
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
            return "ragged row", f"{len(cells)} cells, the header has {len(self.header)}"
        return {name: cell or None for name, cell in zip(self.header, cells, strict=True)}


def scan_csv(path: Path, quoting: Literal["auto", Quoting] = "auto") -> CsvRows:
    """One pass over the file, or one for each quoting in doubt.

    Raises DataError when it has no header, no records, a quote that never ends or no clear quoting.
    """
    form, begin, _ = read_form(path)

    def scan(quoting: Quoting) -> CsvScan:
        return scan_rows(path, replace(form, quoting=quoting), begin)

    chosen, found = choose_quoting(path, form.divider, scan) if quoting == "auto" else (quoting, scan(quoting))
    if found.traces.endless:
        raise DataError(f'{path}: the quote (") that row {found.traces.endless} opens never ends; {WAY_OUT}')
    if len(found.starts) < 2:
        raise DataError(f"{path}: holds no records")
    header = column_names(found.header, path)
    return CsvRows(path, header, replace(form, quoting=chosen), np.array(found.starts, dtype=np.int64), found.digest)
