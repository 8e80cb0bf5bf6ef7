"""What a tokenizer makes of pictures, as files: latent shards for a sequence model, or embeddings as Parquet.

Exports run shard by shard: killed at any moment, the same command continues with the first shard that is missing.
Shapes: B pictures, K latents, D channels, E text-image space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import typer

from data_pipelines.captions import CaptionTokenizer
from data_pipelines.image_text import ImageReader, LoaderConfig
from data_pipelines.latent_shards import LatentRecord, LatentWriter
from data_pipelines.manifest import FILE as MANIFEST_FILE
from data_pipelines.manifest import Manifest, read_manifest
from data_pipelines.samples import ImageTextBatch
from data_pipelines.vocabulary import FILE as CAPTIONS_FILE
from seq_tokenizer import SeqTokenizer
from seqtok.evaluation.reconstruction import encode_all
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import atomic_write


def export_latents(
    model: str | Path,
    data: Path,
    out: Path,
    splits: Sequence[str] | None = None,
    batch: int = 256,
    resume: str = "auto",
    overwrite: bool = False,
) -> Manifest:
    """Encode every shard of `data` into a shard of `out`; captions.model travels along.

    Raises DataError, ConfigError or StorageError; shards that are finished stay.
    """
    if resume not in ("auto", "never"):
        raise ConfigError(f"--resume {resume}: an export continues by itself; choose auto or never")
    mode: Literal["auto", "never"] = "auto" if resume == "auto" else "never"
    folder = model_folder.locate(model)
    tokenizer, captions = SeqTokenizer.from_pretrained(folder), _captions(folder)
    source = _manifest(data)
    wanted = _splits(source, data, splits)
    spec = tokenizer.spec
    plan = {"tokenizer_id": spec.tokenizer_id, "data": source.fingerprint, "splits": wanted}
    writer = LatentWriter(out, shape=(spec.length, spec.dim), source=source, plan=plan, name=f"{source.name}_latents")
    with writer.open(overwrite=overwrite, resume=mode):
        captions.save(out / CAPTIONS_FILE)
        counts = {}
        for split in wanted:
            reader = ImageReader(data, split, captions, LoaderConfig(), one_pass=True)
            _fits(tokenizer, reader.image_size, data)
            counts[split] = len(reader.shards.sizes)
            first = 0
            for number, size in enumerate(reader.shards.sizes):
                if not writer.is_done(split, number):
                    writer.write(split, number, _records(tokenizer, reader, first, size, batch))
                first += size
        manifest = writer.finish(spec.to_json(), counts)
    total = sum(info.samples for info in manifest.splits.values())
    typer.echo(f"{out}: {total} pictures as {spec.length} x {spec.dim} latents of tokenizer {spec.tokenizer_id}")
    return manifest


def export_embeddings(
    model: str | Path,
    data: Path,
    out: Path,
    splits: Sequence[str] | None = None,
    prefix: int | None = None,
    batch: int = 256,
    overwrite: bool = False,
) -> Path:
    """Write a Parquet file of (key, split, embedding (E floats of unit norm) of the first `prefix` tokens).

    The file's metadata names the tokenizer and the prefix. Raises DataError or ConfigError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.exists() and not overwrite:
        raise DataError(f"{out}: exists already; choose another file or use --overwrite")
    folder = model_folder.locate(model)
    tokenizer, captions = SeqTokenizer.from_pretrained(folder), _captions(folder)
    length = tokenizer.config.num_latents
    k = length if prefix is None else prefix
    if not 1 <= k <= length:
        raise ConfigError(f"--prefix {k}: choose from 1 to {length}")
    source = _manifest(data)
    rows: dict[str, list] = {"key": [], "split": [], "embedding": []}
    for split in _splits(source, data, splits):
        reader = ImageReader(data, split, captions, LoaderConfig(), one_pass=True)
        _fits(tokenizer, reader.image_size, data)
        for part in _batches(reader, 0, len(reader), batch):
            latents = encode_all(tokenizer, part.images, batch)
            with torch.no_grad():
                vectors = tokenizer.prefix_embeddings(latents)[:, k - 1]
            rows["key"] += part.keys
            rows["split"] += [split] * len(part)
            rows["embedding"] += vectors.tolist()
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("split", pa.string()),
            ("embedding", pa.list_(pa.float32(), len(rows["embedding"][0]))),
        ],
        metadata={"tokenizer_id": tokenizer.tokenizer_id, "prefix": str(k), "data": source.fingerprint},
    )
    with atomic_write(out) as stream:
        pq.write_table(pa.table(rows, schema=schema), stream)
    typer.echo(f"{out}: {len(rows['key'])} embeddings of the first {k} of {length} tokens")
    return out


def _records(tokenizer: SeqTokenizer, reader: ImageReader, first: int, size: int, batch: int) -> Iterator[LatentRecord]:
    for part in _batches(reader, first, size, batch):
        latents = encode_all(tokenizer, part.images, batch).numpy()
        for row in range(len(part)):
            record = reader.shards.record(int(part.index[row]))
            yield LatentRecord(key=record.key, latents=latents[row], captions=record.captions, labels=record.labels)


def _batches(reader: ImageReader, first: int, size: int, batch: int) -> Iterator[ImageTextBatch]:
    for start in range(first, first + size, batch):
        yield reader.batch(0, np.arange(start, min(start + batch, first + size), dtype=np.int64))


def _manifest(data: Path) -> Manifest:
    if not (data / MANIFEST_FILE).is_file():
        raise DataError(
            f"{data}: no {MANIFEST_FILE}, so no data set of ours; `seqtok data prepare {data} NEW_FOLDER` makes one"
        )
    return read_manifest(data)


def _splits(source: Manifest, data: Path, splits: Sequence[str] | None) -> list[str]:
    wanted = list(splits) if splits else sorted(source.splits)
    for split in wanted:
        source.split(split, data)
    return wanted


def _captions(folder: Path) -> CaptionTokenizer:
    return CaptionTokenizer.load(folder / model_folder.CAPTIONS)


def _fits(tokenizer: SeqTokenizer, size: int, data: Path) -> None:
    if size != tokenizer.config.image_size:
        raise ConfigError(
            f"{data}: pictures of {size} pixels, the tokenizer was trained on {tokenizer.config.image_size}; "
            f"prepare the data with --size {tokenizer.config.image_size}"
        )
