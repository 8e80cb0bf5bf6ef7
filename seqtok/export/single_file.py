"""One .parquet file out of parts that were written aside, in a hidden folder next to it.

A killed export continues with the parts that are missing; the file itself appears whole, or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.shards.output import PLAN
from data_pipelines.shards.parts import ExportManifest
from seqtok_core.foundation import faults, fingerprint
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import atomic_write, read_json

_MADE_BY = b"seqtok_plan"  # key of the file's own metadata


def parts_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def is_assembled(out: Path, plan: Mapping[str, Any], overwrite: bool) -> bool:
    """True when OUT is the whole result of this very export, whether it cleaned up or was killed before.

    Raises DataError when OUT exists and nothing says that it is ours to continue.
    """
    if not out.exists():
        return False
    if overwrite:
        _require_ours(out)
        return False
    begun = parts_folder(out) / PLAN
    if out.is_file() and begun.is_file() and read_json(begun) == plan:
        return True
    if out.is_file() and _plan_of(out) == fingerprint.of_value(plan):
        return True
    raise DataError(f"{out}: exists already, of another source or other settings; choose another file or --overwrite")


def _require_ours(out: Path) -> None:
    """Raises DataError when OUT is no table that an export wrote, which says so in its metadata."""
    try:
        known = pq.read_schema(out).metadata or {}
    except (OSError, pa.ArrowInvalid):
        known = {}
    if not {b"table", b"tokenizer_id"} <= known.keys():
        raise DataError(f"{out}: seqtok did not write this; choose another file")


def _plan_of(out: Path) -> str | None:
    """The plan that a file was made by, as it says itself."""
    try:
        return (pq.read_schema(out).metadata or {}).get(_MADE_BY, b"").decode()
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None


def assemble(out: Path, manifest: ExportManifest, plan: Mapping[str, Any]) -> None:
    """Write the parts' row groups one after another: memory holds one part. The file says by which plan it was made."""
    folder = parts_folder(out)
    (table,) = manifest.tables
    files = [name for split in sorted(manifest.tables[table]) for part in manifest.tables[table][split]
             for name in part.files]  # fmt: skip
    for left in out.parent.glob(f".{out.name}.*.tmp"):
        left.unlink()  # of a kill in here
    schema = pq.read_schema(folder / files[0])
    schema = schema.with_metadata({**(schema.metadata or {}), _MADE_BY: fingerprint.of_value(plan)})
    with atomic_write(out) as stream, pq.ParquetWriter(stream, schema) as writer:
        for name in files:
            writer.write_table(pq.read_table(folder / name))
        faults.hit("export.before_close")
    faults.hit("export.after_assembly")


def clean(out: Path) -> None:
    shutil.rmtree(parts_folder(out), ignore_errors=True)
