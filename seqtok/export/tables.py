"""Encoded shards as the files of a part: Parquet, NumPy, or tar members; equal numbers, equal bytes.

Columns and members are listed in docs/export.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipelines.shards.codes import CODES_ENDING
from data_pipelines.shards.files import json_member
from data_pipelines.shards.latents import save_array
from seqtok.export.config import Table
from seqtok.export.encode import Encoded

EMBEDDING = "embedding.npy"


def parquet_file(table: Table, encoded: Encoded, prefixes: Sequence[int], metadata: Mapping[str, str]) -> bytes:
    """One row group with the rows of a shard."""
    stream = io.BytesIO()
    rows = arrow_table(table, encoded, prefixes).replace_schema_metadata(dict(metadata))
    pq.write_table(rows, stream, row_group_size=max(len(rows), 1))
    return stream.getvalue()


def arrow_table(table: Table, encoded: Encoded, prefixes: Sequence[int]) -> pa.Table:
    """latents: key, split, captions, latents and, with a codebook, codes; images: key, split, prefix, embedding;
    texts: key, split, level, caption, embedding."""
    keys, records = [record.key for record in encoded.records], encoded.records
    if table == "latents":
        columns = {
            "key": pa.array(keys, pa.string()),
            "split": pa.array([encoded.split] * len(keys), pa.string()),
            "captions": pa.array([list(record.captions) for record in records], pa.list_(pa.string())),
            "latents": _vectors(encoded.values.astype(np.float16)),
        }
        if encoded.codes is not None:
            columns["codes"] = _vectors(encoded.codes)
    elif table == "images":
        columns = {
            "key": pa.array([key for key in keys for _ in prefixes], pa.string()),
            "split": pa.array([encoded.split] * len(keys) * len(prefixes), pa.string()),
            "prefix": pa.array(list(prefixes) * len(keys), pa.int32()),
            "embedding": _vectors(encoded.values.reshape(-1, encoded.values.shape[-1])),
        }
    else:
        columns = {
            "key": pa.array([keys[sample] for sample, _ in encoded.rows], pa.string()),
            "split": pa.array([encoded.split] * len(encoded.rows), pa.string()),
            "level": pa.array([level for _, level in encoded.rows], pa.int32()),
            "caption": pa.array([records[sample].captions[level] for sample, level in encoded.rows], pa.string()),
            "embedding": _vectors(encoded.values),
        }
    return pa.table(columns)


def numpy_files(table: Table, encoded: Encoded, stem: str) -> dict[str, bytes]:
    """STEM.npy (latents as float16, embeddings as float32) and STEM.keys.txt, one line per row of the array; with a
    codebook STEM.codes.npy (int32); on the text side also STEM.rows.jsonl with key, level and caption."""
    keys = [record.key for record in encoded.records]
    values = encoded.values.astype(np.float16) if table == "latents" else encoded.values
    if table == "texts":
        rows: list[dict[str, Any]] = [
            {"key": keys[sample], "level": level, "caption": encoded.records[sample].captions[level]}
            for sample, level in encoded.rows
        ]
        keys = [row["key"] for row in rows]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        extra = {f"{stem}.rows.jsonl": lines.encode("utf-8", "surrogatepass")}
    else:
        extra = {} if encoded.codes is None else {f"{stem}{CODES_ENDING}": save_array(encoded.codes)}
    return {
        f"{stem}.npy": save_array(values),
        f"{stem}.keys.txt": "".join(key + "\n" for key in keys).encode(),
        **extra,
    }


def tar_samples(table: Table, encoded: Encoded) -> Iterator[tuple[str, dict[str, bytes]]]:
    """KEY.embedding.npy: (P, E) of a picture, or (L, E) of its captions; KEY.json with the captions."""
    starts: dict[int, list[int]] = {}
    for row, (sample, _) in enumerate(encoded.rows):
        starts.setdefault(sample, []).append(row)
    for sample, record in enumerate(encoded.records):
        values = encoded.values[starts.get(sample, [])] if table == "texts" else encoded.values[sample]
        levels = [encoded.rows[row][1] for row in starts.get(sample, [])]
        captions = [record.captions[level] for level in levels] if table == "texts" else list(record.captions)
        yield record.key, {EMBEDDING: save_array(values), "json": json_member({"captions": captions})}


def _vectors(values: NDArray[Any]) -> pa.Array:
    """(N, ...) -> N lists of fixed size."""
    width = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), width)
