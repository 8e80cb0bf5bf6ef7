"""The pictures of an export: shards of ours, or foreign tars whose pictures are brought to the tokenizer's size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.prepare.keys import PLAIN, Marks, key_of, mark_names
from data_pipelines.shards.manifest import FILE, Manifest, read_manifest
from data_pipelines.shards.shard_set import Record, ShardSet, open_shards
from data_pipelines.tars.names import find_tars
from seqtok.export.config import ExportConfig
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import ConfigError, DataError


@dataclass(frozen=True)
class ExportSource:
    """What is known before anything is encoded. `sizes`: split -> samples of each shard.

    Foreign tars are scanned once: `foreign` are their splits, which travel to worker processes, and `marks` say how
    their keys become those of prepare().
    """

    folder: Path
    name: str
    fingerprint: str
    sizes: dict[str, list[int]]
    manifest: Manifest | None = None  # of a data set of ours
    foreign: dict[str, ShardSet] = field(default_factory=dict)
    marks: dict[str, Marks | None] = field(default_factory=dict)

    def open(self, split: str) -> ShardSet:
        return self.foreign[split] if self.foreign else open_shards(self.folder, split)

    def record(self, shards: ShardSet, split: str, index: int) -> Record:
        """With the key that is written."""
        record, marks = shards.record(index), self.marks.get(split)
        if not self.foreign:
            return record
        key = key_of(record.key, PLAIN if marks is None else int(marks[index]), split)
        if key is None:
            raise DataError(f"{shards.place(index)}: its key is that of another sample; `prepare()` tells them apart")
        return replace(record, key=key)


def open_export_source(folder: Path, config: ExportConfig, image_size: int) -> ExportSource:
    """Raises DataError when a split is not there, ConfigError when pictures of ours have another size."""
    if (folder / FILE).is_file():
        own = read_manifest(folder)
        if own.kind != "images":
            raise DataError(f"{folder}: holds {own.kind}, not images; name the folder of image shards")
        if own.image_size != image_size:
            raise ConfigError(
                f"{folder}: pictures of {own.image_size} pixels, the tokenizer was trained on {image_size}; "
                f"prepare the data with --size {image_size}"
            )
        found = {split: own.split(split, folder) for split in config.splits or sorted(own.splits)}
        sizes = {split: [shard.samples for shard in info.shards] for split, info in found.items()}
        return ExportSource(folder, own.name, own.fingerprint, sizes, manifest=own)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of shards")
    if not any(folder.glob("*.tar")):
        raise DataError(
            f"{folder}: no {FILE} and no tars, so no shards; `seqtok data prepare {folder} NEW_FOLDER` makes some"
        )
    return _foreign(folder, config)


def _foreign(folder: Path, config: ExportConfig) -> ExportSource:
    wanted = config.splits or sorted(find_tars(folder))
    sets = {split: open_shards(folder, split, config.fields, max_bad_share=config.max_bad_share) for split in wanted}
    name = re.sub(r"[^A-Za-z0-9_]", "_", folder.resolve().name)[:64] or "data"
    return ExportSource(
        folder,
        name,
        fingerprint.of_value({split: shards.fingerprint for split, shards in sets.items()}),
        {split: list(shards.sizes) for split, shards in sets.items()},
        foreign=sets,
        # Split by split, so that the keys of one do not depend on which others are exported.
        marks={split: mark_names({split: shards})[split] for split, shards in sets.items()},
    )


def decode_pictures(files: Sequence[bytes], places: Sequence[str], size: int, exact: bool) -> Tensor:
    """(B, 3, size, size) uint8. Raises DataError naming a picture that cannot be read.

    With `exact`, pictures have that size; others get it: short side to `size`, centre crop.
    """
    images = np.empty((len(files), 3, size, size), dtype=np.uint8)
    for row, data in enumerate(files):
        try:
            pixels = decode_pixels(data, None if exact else size)
        except DecodeError as error:
            raise DataError(f"{places[row]}: {error}; `seqtok data prepare` leaves bad samples out") from None
        if pixels.shape[:2] != (size, size):
            raise DataError(
                f"{places[row]}: {pixels.shape[1]} x {pixels.shape[0]} pixels instead of {size} x {size}; "
                "`seqtok data verify` looks for more"
            )
        images[row] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(images)
