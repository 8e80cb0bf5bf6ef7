"""JSON Lines: one object per line, found by byte offsets and read when needed.

Stated rules: UTF-8, with or without a byte order mark; empty lines are no records; a line that is not a JSON
object is a bad sample, named by file and line.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.packed import read_spans
from data_pipelines.rows import Record
from data_pipelines.sources import Bad
from seqtok_core.foundation.errors import DataError

_BOM = b"\xef\xbb\xbf"
_LOOKED_AT = 1000  # lines whose fields are taken for those of the file


@dataclass(frozen=True, eq=False)
class JsonLines:
    path: Path
    starts: NDArray[np.int64]  # (N + 1,) byte offset of each record, and the end
    lines: NDArray[np.int64] | None  # (N,) number of its line; None: record i lies on line i + 1
    digest: str

    def __len__(self) -> int:
        return len(self.starts) - 1

    def columns(self) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for record in self.read(0, min(len(self), _LOOKED_AT), ()):
            names.update(dict.fromkeys(() if isinstance(record, Bad) else record))
        return tuple(names)

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for index, line in enumerate(read_spans(self.path, self.starts, start, stop), start):
            record = _parse(line)
            yield record if isinstance(record, dict) else Bad(self.place(index), *record)

    def place(self, index: int) -> str:
        line = index + 1 if self.lines is None else int(self.lines[index])
        return f"{self.path.name} line {line}"

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
    return JsonLines(path, np.array(starts, dtype=np.int64), lines, digest.hexdigest())


def _parse(line: bytes) -> dict[str, Any] | tuple[str, str]:
    """The record, or (reason, detail). Empty lines that follow a record are white space to JSON."""
    try:
        record = json.loads(line.removeprefix(_BOM).decode("utf-8"))
    except UnicodeDecodeError as error:
        return "not UTF-8", f"byte {error.start} of the line"
    except (ValueError, RecursionError) as error:
        return "not JSON", str(error)[:200]
    return record if isinstance(record, dict) else ("not a record", type(record).__name__)
