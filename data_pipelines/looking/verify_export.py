"""Parts of an export (Parquet, NumPy, tar): files, hashes, rows, finite numbers, fingerprints."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipelines.shards.codes import CODES_ENDING, CodeLayout
from data_pipelines.shards.latents import load_array
from data_pipelines.shards.parts import ExportManifest, PartInfo, part_faults
from seqtok_core.foundation.errors import DataError

_UNIT = 1e-3  # how far the norm of an embedding may lie from 1


@dataclass(frozen=True)
class PartJob:
    table: str
    split: str
    part: PartInfo


def part_jobs(manifest: ExportManifest) -> list[PartJob]:
    return [
        PartJob(table, split, part)
        for table, splits in manifest.tables.items()
        for split, parts in splits.items()
        for part in parts
    ]


def check_part(shared: tuple[Path, ExportManifest], job: PartJob) -> tuple[int, list[str]]:
    """(rows, problems) of one part."""
    folder, manifest = shared
    problems = part_faults(folder, job.part)
    if problems:
        return job.part.rows, problems
    try:
        rows = 0
        codes = CodeLayout.from_spec(manifest.latent_spec or {})
        if codes is not None and "codes" in manifest.source.get("export", {}):
            _check_codes(folder, job, codes)
        for name in job.part.files:
            if name.endswith(CODES_ENDING):
                continue
            for values in _values(folder / name, manifest, job):
                rows += len(values)
                _check_values(values, job.table)
        if rows != job.part.rows:
            raise DataError(f"{rows} rows instead of {job.part.rows}")
    except (DataError, pa.ArrowException, OSError) as error:
        problems.append(f"{folder / job.part.index}: {error}")
    return job.part.rows, problems


def _check_codes(folder: Path, job: PartJob, layout: CodeLayout) -> None:
    """Raises DataError unless every row of latents has its codes."""
    name = next((name for name in job.part.files if name.endswith((".parquet", CODES_ENDING))), "")
    if name.endswith(CODES_ENDING):
        codes = load_array((folder / name).read_bytes(), name)
    elif name and "codes" in pq.read_schema(folder / name).names:
        column = pq.read_table(folder / name, columns=["codes"]).column("codes").combine_chunks()
        width = math.prod(layout.shape)
        if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != width:
            raise DataError(f"{name}: codes are {column.type} instead of lists of {width}")
        codes = np.asarray(column.flatten()).reshape(len(column), *layout.shape)
    else:
        raise DataError(f"{job.part.index}: has no codes beside its latents")
    if len(codes) != job.part.rows:
        raise DataError(f"codes of {len(codes)} pictures instead of {job.part.rows}")
    for row in codes:
        layout.check(row, name)


def _values(path: Path, manifest: ExportManifest, job: PartJob) -> Iterator[NDArray[Any]]:
    """(rows, ...) arrays."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        found = table.schema.metadata or {}
        for name, value in manifest.fingerprints.items():
            if found.get(name.encode(), b"").decode() != str(value):
                raise DataError(f"{path.name}: {name} differs from dataset.json")
        vectors = table.column("latents" if job.table == "latents" else "embedding").combine_chunks()
        yield np.asarray(vectors.flatten()).reshape(len(table), -1)
    elif path.suffix == ".npy":
        values = load_array(path.read_bytes(), path.name)
        keys = path.with_suffix(".keys.txt").read_text(encoding="utf-8").count("\n")
        if keys != len(values) or values.shape[1:] != manifest.shapes[job.table]:
            raise DataError(f"{path.name}: {values.shape} with {keys} keys, rows are {manifest.shapes[job.table]}")
        yield values
    elif path.suffix == ".tar":
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.name.endswith(".npy"):
                    stream = tar.extractfile(info)
                    assert stream is not None
                    values = load_array(io.BytesIO(stream.read()).getvalue(), info.name)
                    yield values if job.table == "texts" else values[None]


def _check_values(values: NDArray[Any], table: str) -> None:
    if not np.isfinite(values).all():
        raise DataError("numbers are not finite")
    if table != "latents" and (np.abs(np.linalg.norm(values, axis=-1) - 1) > _UNIT).any():
        raise DataError("embeddings are not of unit norm")
