"""The held-out split of a model's data: pictures by number, and the captions that a prefix is held against."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import ShardSet, open_shards
from seqtok_core.foundation.errors import DataError

_SPLITS = ("test", "val")
_READ = 1000  # samples whose captions are taken
CAPTIONS = 2000  # different ones, at most


class HeldOut:
    def __init__(self, folder: Path) -> None:
        """Raises DataError where the data set has no held-out split, or holds no pictures."""
        splits = [split for split in _SPLITS if split in read_manifest(folder).splits]
        if not splits:
            raise DataError(f"{folder}: neither a test nor a val split, so there are no held-out pictures")
        self.split = splits[0]
        self._shards: ShardSet = open_shards(folder, self.split)

    def __len__(self) -> int:
        return len(self._shards)

    def picture(self, number: int) -> tuple[bytes, tuple[str, ...]]:
        """Its bytes and its captions, coarse to fine. Raises DataError."""
        if not 0 <= number < len(self):
            raise DataError(f"held-out picture {number}: there are 0 to {len(self) - 1}")
        return self._shards.read_image(number), self._shards.record(number).captions

    @cached_property
    def captions(self) -> list[str]:
        """The different captions of the first samples, of every level."""
        records = (self._shards.record(number) for number in range(min(_READ, len(self))))
        return list(dict.fromkeys(caption for record in records for caption in record.captions))[:CAPTIONS]
