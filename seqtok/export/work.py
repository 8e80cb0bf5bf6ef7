"""One shard is one task: read, encode, check, commit. Pure, so who does it and when changes no byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipelines.shards.latent_check import Statistics
from data_pipelines.shards.shard_set import ShardSet
from seqtok.export.config import ExportConfig
from seqtok.export.encode import ShardEncoder
from seqtok.export.source import ExportSource
from seqtok.export.stores import LatentStore, PartStore, checked
from seqtok_core.foundation import faults


@dataclass(frozen=True)
class ExportTask:
    split: str
    number: int
    samples: int


@dataclass
class ExportWork:
    """What all tasks share. A copy travels to each worker process, which loads the tokenizer at its first task."""

    model: Path
    source: ExportSource
    config: ExportConfig
    stores: list[LatentStore] | list[PartStore]
    prefixes: tuple[int, ...]
    statistics: Statistics
    fingerprints: dict[str, Any]
    device: str = "cpu"
    threads: int = 1  # slices that each process encodes side by side
    batch: int = 64
    encoder: ShardEncoder | None = None
    shards: dict[str, ShardSet] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "encoder": None, "shards": {}}

    def open(self, split: str) -> tuple[ShardEncoder, ShardSet]:
        if self.encoder is None:
            self.encoder = ShardEncoder(self.model, self.device, self.threads)
        if split not in self.shards:
            self.shards[split] = self.source.open(split)
        return self.encoder, self.shards[split]


@dataclass(frozen=True)
class ExportDone:
    samples: int
    encoded: int  # of them in this run; the others were found finished


def export_shard(work: ExportWork, task: ExportTask) -> ExportDone:
    """Whatever of the shard is committed already stays as it is."""
    encoded_now = 0
    for store in work.stores:
        if store.is_done(task.split, task.number):
            continue
        encoder, shards = work.open(task.split)
        faults.hit("export.before_encode")
        encoded = encoder.encode(store.table, work.source, shards, task.split, task.number, work.prefixes, work.batch)
        facts: dict[str, Any] = {"fingerprints": work.fingerprints}
        if store.table == "latents":
            facts["check"] = checked(encoded, work.statistics, work.config.on_outlier)
        if store.table == "texts":
            facts["captions_cut"] = encoded.captions_cut
        store.write(encoded, facts)
        encoded_now = task.samples
    return ExportDone(task.samples, encoded_now)
