"""Where encoded shards go: latent shards that training reads, or parts of Parquet, NumPy and tar files.

A store commits one shard at a time and knows which are committed. It is small: every worker process gets a copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.shards import latent_check
from data_pipelines.shards import parts as export_parts
from data_pipelines.shards.codes import CodeLayout
from data_pipelines.shards.files import commit_shard, is_committed, read_index
from data_pipelines.shards.latents import LatentRecord, LatentWriter
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.output import Resume, output_folder
from data_pipelines.shards.parts import ExportManifest, FileInfo, Format, PartInfo
from seqtok.export.config import Table
from seqtok.export.encode import Encoded
from seqtok.export.tables import numpy_files, parquet_file, tar_samples
from seqtok_core.foundation import faults, fingerprint
from seqtok_core.foundation.files import sha256_file

Result = Manifest | ExportManifest


class LatentStore:
    """Latents as webdataset shards: what the sequence model is trained on."""

    table: Table = "latents"

    def __init__(self, out: Path, writer: LatentWriter) -> None:
        self.out, self._writer = out, writer
        self.plan = writer.plan

    def open(self, *, overwrite: bool, resume: Resume) -> AbstractContextManager[None]:
        return self._writer.open(overwrite=overwrite, resume=resume)

    def is_done(self, split: str, number: int) -> bool:
        return self._writer.is_done(split, number)

    def write(self, encoded: Encoded, facts: Mapping[str, Any]) -> None:
        rows_of_codes = [None] * len(encoded.records) if encoded.codes is None else encoded.codes
        latents = (
            LatentRecord(key=record.key, latents=values, captions=record.captions, labels=record.labels, codes=codes)
            for record, values, codes in zip(encoded.records, encoded.values, rows_of_codes, strict=True)
        )
        self._writer.write(encoded.split, encoded.number, latents, facts)

    def facts(self, split: str, number: int) -> dict[str, Any]:
        return self._writer.facts(split, number)

    def finish(self, spec: Mapping[str, Any], counts: Mapping[str, int]) -> Manifest:
        check = latent_check.summarise_checks(
            self.facts(s, n)["check"] for s, count in counts.items() for n in range(count)
        )
        return self._writer.finish(spec, counts, {"check": check})


@dataclass(frozen=True)
class PartStore:
    """One table as parts `NAME-SPLIT-000000.*`. `plan` decides every byte of all tables of the export."""

    table: Table
    out: Path
    name: str
    form: Format
    plan: dict[str, Any]
    prefixes: tuple[int, ...]
    shape: tuple[int, ...]  # of one row
    fingerprints: Mapping[str, Any]
    codes: CodeLayout | None = None  # that lie beside latents

    @contextlib.contextmanager
    def open(self, *, overwrite: bool, resume: Resume) -> Iterator[None]:
        with output_folder(self.out, self.plan, overwrite=overwrite, resume=resume):
            yield

    def is_done(self, split: str, number: int) -> bool:
        stem, task = self._stem(split, number), self._task(split, number)
        if self.form == "webdataset":
            return is_committed(self.out, f"{stem}.tar", task)
        return export_parts.is_part_done(self.out, stem, task)

    def write(self, encoded: Encoded, facts: Mapping[str, Any]) -> None:
        stem, task = self._stem(encoded.split, encoded.number), self._task(encoded.split, encoded.number)
        count = len(encoded.rows) if self.table == "texts" else len(encoded.records)
        if self.form == "webdataset":
            samples = tar_samples(self.table, encoded)
            commit_shard(self.out, f"{stem}.tar", samples, task=task, facts={**facts, "rows": count})
            return
        if self.form == "numpy":
            files = numpy_files(self.table, encoded, stem)
        else:
            count *= len(self.prefixes) if self.table == "images" else 1
            files = {f"{stem}.parquet": parquet_file(self.table, encoded, self.prefixes, self.metadata)}
        export_parts.commit_part(self.out, stem, files, rows=count, task=task, facts=facts)

    def facts(self, split: str, number: int) -> dict[str, Any]:
        stem = self._stem(split, number)
        if self.form == "webdataset":
            return read_index(self.out, f"{stem}.tar")["facts"]
        return export_parts.read_part(self.out, stem)["facts"]

    def part(self, split: str, number: int) -> PartInfo:
        stem = self._stem(split, number)
        if self.form != "webdataset":
            return export_parts.part_info(self.out, stem)
        index = read_index(self.out, f"{stem}.tar")
        tar = FileInfo(bytes=index["bytes"], sha256=index["sha256"])
        sidecar = export_parts.index_of(stem)
        return PartInfo(
            index=sidecar,
            index_sha256=sha256_file(self.out / sidecar),
            rows=index["facts"]["rows"],
            files={f"{stem}.tar": tar},
        )

    @property
    def metadata(self) -> dict[str, str]:
        """What a Parquet file says about itself."""
        known = {name: str(value) for name, value in self.fingerprints.items()}
        shape = " ".join(str(n) for n in self.shape)
        known |= {"table": self.table, "prefix": ",".join(map(str, self.prefixes)), "shape": shape}
        if self.codes is not None:
            known |= {"codes_shape": " ".join(map(str, self.codes.shape)), "codebook_size": str(self.codes.size)}
        return known

    def _stem(self, split: str, number: int) -> str:
        return f"{self.name}_{self.table}-{split}-{number:06d}"

    def _task(self, split: str, number: int) -> str:
        return fingerprint.of_value([self.plan, self.table, split, number])


def finish_parts(
    stores: Sequence[PartStore],
    counts: Mapping[str, int],
    spec: Mapping[str, Any],
) -> ExportManifest:
    """Write `dataset.json` over the parts of all tables, each of which must be committed."""
    first = stores[0]
    is_latents = first.table == "latents"
    tables = {
        store.table: {split: tuple(store.part(split, n) for n in range(count)) for split, count in counts.items()}
        for store in stores
    }
    facts = [store.facts(split, n) for store in stores for split, count in counts.items() for n in range(count)]
    cut = sum(found.get("captions_cut", 0) for found in facts)
    checks = [found["check"] for found in facts if "check" in found]
    result = ExportManifest(
        kind="latents" if is_latents else "embeddings",
        format=first.form,
        name=first.name,
        fingerprints=first.fingerprints,
        shapes={store.table: store.shape for store in stores},
        tables=tables,
        prefixes=first.prefixes,
        latent_spec=spec if is_latents else None,
        check=latent_check.summarise_checks(checks) if is_latents else {"captions_cut": cut},
        source=first.plan,
    )
    faults.hit("parts.before_manifest")
    export_parts.write_export(first.out, result)
    return result


def checked(encoded: Encoded, statistics: latent_check.Statistics, on_outlier: str) -> dict[str, Any]:
    """Facts about latents as they will be stored. Raises DataError as data_pipelines/shards/latent_check.py says."""
    keys = [record.key for record in encoded.records]
    with np.errstate(over="ignore"):
        stored = encoded.values.astype(np.float16)
    facts = latent_check.measure(stored, keys, statistics)
    if on_outlier == "error" and encoded.codes is None:  # entries of a codebook may be rare, but they are known values
        latent_check.refuse_outliers(facts)
    return facts
