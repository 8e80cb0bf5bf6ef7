"""All shards of one split as one list of samples, read at their offsets.

Reads folders with a `dataset.json`, and foreign folders of tars, which are scanned once. Sizes are checked
before the first sample is read; hashes only by `seqtok data verify`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines import manifest as manifests
from data_pipelines.foreign import scan_foreign
from data_pipelines.manifest import Manifest, ShardInfo
from data_pipelines.records import Fields, captions_of, labels_of
from data_pipelines.shard_files import index_samples, read_index
from data_pipelines.sources import Bad
from data_pipelines.tar_index import TarSample
from data_pipelines.tar_source import IMAGE_EXTENSIONS, OnBadShard, read_record, read_span
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import sha256_file

MISSING_LABEL = -1


@dataclass(frozen=True)
class Record:
    """Everything of a sample but its picture or latents."""

    key: str
    captions: tuple[str, ...]
    labels: dict[str, int]  # class indices; MISSING_LABEL where there is none


class ShardSet:
    """Samples of a split by their index. Can be pickled and forked: files are opened where they are read."""

    def __init__(
        self,
        shards: Sequence[tuple[Path, list[TarSample]]],
        fields: Fields,
        labels: Sequence[str],
        classes: dict[str, tuple[str, ...]],
        nested: bool,
    ) -> None:
        """`nested`: labels lie in the record's "labels" (ours) instead of its top level (foreign)."""
        self.paths = [path for path, _ in shards]
        self.sizes = [len(samples) for _, samples in shards]
        self.labels, self.classes = tuple(labels), classes
        self.levels = 0
        self.manifest: Manifest | None = None  # of a data set of ours
        self.skipped: tuple[str, ...] = ()  # damaged shards that were left out, one message each
        self.dropped: tuple[Bad, ...] = ()  # samples of foreign tars without a picture or a readable record
        self.fingerprint = ""
        self._samples = [sample for _, samples in shards for sample in samples]
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self._fields, self._nested = fields, nested
        self._numbers = {label: {word: n for n, word in enumerate(words)} for label, words in classes.items()}
        self._handles: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        return self._samples[index].key

    def place(self, index: int) -> str:
        """Shard and key, for messages."""
        return f"{self.paths[self._shard(index)]}:{self.key(index)}"

    def members(self, index: int) -> tuple[str, ...]:
        """Extensions of a sample's members."""
        return tuple(self._samples[index].members)

    def read(self, index: int, extensions: Sequence[str]) -> bytes:
        """Content of the first of these members that the sample has. Raises DataError."""
        sample = self._samples[index]
        for extension in extensions:
            if extension in sample.members:
                return read_span(self._handle(index), sample.members[extension])
        raise DataError(f"{self.place(index)}: has no .{extensions[0]}; members: {', '.join(sample.members)}")

    def read_image(self, index: int) -> bytes:
        return self.read(index, IMAGE_EXTENSIONS)

    def record(self, index: int) -> Record:
        """Captions and labels. Raises DataError naming the sample."""
        sample = self._samples[index]
        try:
            raw = read_record(self._handle(index), sample, self._fields)
            holder = raw.get("labels", {}) if self._nested else raw
            found = labels_of(holder, Fields(labels=self.labels))
            labels = {name: self._number(name, found.get(name)) for name in self.labels}
            return Record(sample.key, captions_of(raw, self._fields), labels)
        except DataError as error:
            raise DataError(f"{self.place(index)}: {error}") from None

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def _number(self, label: str, value: int | str | None) -> int:
        if value is None:
            return MISSING_LABEL
        if isinstance(value, int):
            return value
        number = self._numbers.get(label, {}).get(value)
        if number is None:
            raise DataError(f"label {label!r} has the unknown class {value!r}")
        return number

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _handle(self, index: int) -> int:
        number = self._shard(index)
        if number not in self._handles:
            try:
                self._handles[number] = os.open(self.paths[number], os.O_RDONLY)
            except OSError as error:
                raise DataError(f"{self.paths[number]}: cannot be read ({error.strerror})") from None
        return self._handles[number]


def open_shards(
    folder: Path,
    split: str,
    fields: Fields | None = None,
    on_bad_shard: OnBadShard = "error",
    kind: Literal["images", "latents"] = "images",
) -> ShardSet:
    """The split of a data set of ours, or of foreign tars. Raises DataError naming what is wrong.

    With `on_bad_shard="skip"` damaged shards are left out and named in `skipped`.
    """
    folder = Path(folder)
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    if (folder / manifests.FILE).is_file():
        content = manifests.read_manifest(folder)
        if content.kind != kind:
            raise DataError(f"{folder}: holds {content.kind}, not {kind}")
        return _open_own(folder, split, content, on_bad_shard)
    if (folder / "prepare.json").is_file():
        raise DataError(f"{folder}: the data set is not finished; run the command that makes it again")
    if kind == "latents":
        raise DataError(f"{folder}: no {manifests.FILE}; latents are written by `seqtok tokenizer export`")
    return _open_foreign(folder, split, fields or Fields(), on_bad_shard)


def _open_own(folder: Path, split: str, content: Manifest, on_bad_shard: OnBadShard) -> ShardSet:
    shards: list[tuple[Path, list[TarSample]]] = []
    skipped: list[str] = []
    for info in content.split(split, folder).shards:
        try:
            shards.append((folder / info.file, checked_samples(folder, info)))
        except DataError as error:
            if on_bad_shard == "error":
                raise
            skipped.append(str(error))
    if not any(samples for _, samples in shards):
        raise DataError(f"{folder}: split {split!r} holds no samples (damaged shards: {len(skipped)})")
    result = ShardSet(shards, Fields(), content.labels, dict(content.classes), nested=True)
    result.levels, result.manifest = content.levels, content
    result.skipped = tuple(skipped)
    result.fingerprint = fingerprint.of_value([content.fingerprint, [path.name for path in result.paths]])
    return result


def checked_samples(folder: Path, info: ShardInfo) -> list[TarSample]:
    """Index of a shard whose size, index hash and count are as the manifest says. Raises DataError."""
    path, sidecar = folder / info.file, folder / info.index_file
    try:
        size = path.stat().st_size
    except OSError:
        raise DataError(f"{path}: shard is missing; copy or build it again") from None
    if size != info.bytes:
        raise DataError(f"{path}: has {size} bytes instead of {info.bytes}; copy or build the shard again")
    samples = index_samples(read_index(folder, info.file), sidecar)
    if sha256_file(sidecar) != info.index_sha256 or len(samples) != info.samples:
        raise DataError(f"{sidecar}: not the index that dataset.json names; copy or build the shard again")
    return samples


def _open_foreign(folder: Path, split: str, fields: Fields, on_bad_shard: OnBadShard) -> ShardSet:
    found = scan_foreign(folder, split, fields, on_bad_shard)
    result = ShardSet(found.shards, fields, fields.labels, found.classes, nested=False)
    result.levels, result.skipped, result.dropped = found.levels, found.skipped, found.dropped
    result.fingerprint = found.fingerprint
    return result
