"""All shards of one split as one list of samples, read at their offsets.

Reads folders with a `dataset.json`, and foreign folders of tars, which are scanned once. Before the first sample
is read, every shard's size and every index's hash are checked; hashes of shards only when a data set is verified.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines.shards import manifest as manifests
from data_pipelines.shards.files import index_samples, read_index
from data_pipelines.shards.foreign import ForeignRule, scan_foreign
from data_pipelines.shards.manifest import Manifest, ShardInfo
from data_pipelines.shards.opened import OpenShards, ShardFile
from data_pipelines.sources.base import MAX_BAD_SHARE, Bad, OnBadSample
from data_pipelines.sources.records import Fields, labels_of, picture_member, read_record, record_captions
from data_pipelines.tars.index import OnBadShard, TarSample, read_span
from data_pipelines.tars.names import IMAGE_EXTENSIONS
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import refuse_lfs_pointer, sha256_file

log = logging.getLogger(__name__)
MISSING_LABEL = -1
_CHECKS = 8  # shards looked at side by side: on a network disk each look is a round trip


@dataclass(frozen=True)
class Record:
    """Everything of a sample but its picture or latents."""

    key: str
    captions: tuple[str, ...]
    labels: dict[str, int]  # class indices; MISSING_LABEL where there is none


class ShardSet:
    """Samples of a split by their index. Can be pickled and forked; memory does not grow with the split."""

    def __init__(
        self,
        shards: Sequence[ShardFile],
        fields: Fields,
        labels: Sequence[str],
        classes: dict[str, tuple[str, ...]],
        nested: bool,
    ) -> None:
        """`nested`: labels lie in the record's "labels" (ours) instead of its top level (foreign)."""
        self.paths = [shard.path for shard in shards]
        self.sizes = [shard.samples for shard in shards]
        self.labels, self.classes = tuple(labels), classes
        self.levels = 0
        self.manifest: Manifest | None = None  # of a data set of ours
        self.skipped: tuple[str, ...] = ()  # damaged shards that were left out, one message each
        self.dropped: tuple[Bad, ...] = ()  # samples of foreign tars without a picture or a readable record, copies
        self.fingerprint = ""
        self.on_read: Callable[[int], None] | None = None  # told the index of each sample before it is read
        self._open = OpenShards(shards)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self._fields, self._label_fields, self._nested = fields, Fields(labels=tuple(labels)), nested
        self._numbers = {label: {word: n for n, word in enumerate(words)} for label, words in classes.items()}
        self._last: tuple[int, TarSample, int] | None = None  # a sample is asked for several times in a row

    def __len__(self) -> int:
        return int(self._starts[-1])

    def hold(self, shards: int) -> None:
        """Expect that this many shards are read in turns."""
        self._open.hold(shards)

    def key(self, index: int) -> str:
        return self._sample(index)[0].key

    def names(self, start: int, stop: int) -> Iterator[str]:
        """Keys of the samples [start, stop)."""
        return (self.key(index) for index in range(start, stop))

    def place(self, index: int) -> str:
        """Shard and key, for messages."""
        return f"{self.paths[self._shard(index)]}:{shown(self.key(index))}"

    def members(self, index: int) -> tuple[str, ...]:
        """Extensions of a sample's members."""
        return tuple(self._sample(index)[0].members)

    def read(self, index: int, extensions: Sequence[str]) -> bytes:
        """Content of the first of these members that the sample has. Raises DataError."""
        sample, handle = self._sample(index)
        for extension in extensions:
            if extension in sample.members:
                try:
                    return read_span(handle, sample.members[extension])
                except DataError as error:
                    raise DataError(f"{self.place(index)}: {error}") from None
        raise DataError(f"{self.place(index)}: has no .{extensions[0]}; members: {', '.join(sample.members)}")

    def read_image(self, index: int) -> bytes:
        member = picture_member(self.members(index), self._fields)
        return self.read(index, (member,) if member else IMAGE_EXTENSIONS)

    def record(self, index: int) -> Record:
        """Captions and labels. Raises DataError naming the sample."""
        sample, handle = self._sample(index)
        try:
            raw = read_record(handle, sample, self._fields)
            holder = raw.get("labels", {}) if self._nested else raw
            found = labels_of(holder, self._label_fields) if self.labels else {}
            labels = {name: self._number(name, found.get(name)) for name in self.labels}
            return Record(sample.key, record_captions(raw, self._fields), labels)
        except DataError as error:
            raise DataError(f"{self.place(index)}: {error}") from None

    def close(self) -> None:
        self._last = None
        self._open.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def _number(self, label: str, value: int | str | None) -> int:
        if value is None:
            return MISSING_LABEL
        if isinstance(value, int):
            return value
        number = self._numbers.get(label, {}).get(value)
        if number is None:
            raise DataError(f"label {label!r} has the unknown class {shown(value)!r}")
        return number

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _sample(self, index: int) -> tuple[TarSample, int]:
        """The sample, and the file to read it from."""
        last = self._last
        if last is not None and last[0] == index:
            return last[1], last[2]
        if self.on_read is not None:
            self.on_read(index)
        number = self._shard(index)
        opened = self._open[number]
        sample = opened.samples[index - int(self._starts[number])]
        self._last = (index, sample, opened.handle)
        return sample, opened.handle


def open_shards(
    folder: Path,
    split: str,
    fields: Fields | None = None,
    on_bad_shard: OnBadShard = "error",
    kind: Literal["images", "latents"] = "images",
    *,
    on_bad_sample: OnBadSample = "skip",
    max_bad_share: float = MAX_BAD_SHARE,
) -> ShardSet:
    """The split of a data set of ours, or of foreign tars. Raises DataError naming what is wrong.

    With `on_bad_shard="skip"` damaged shards are left out and named in `skipped`. Samples of foreign tars that cannot
    be used are left out with a warning, up to `max_bad_share` of all, or an error.
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
        raise DataError(f"{folder}: no {manifests.FILE}; latents are written by `export_tokens()`")
    return _open_foreign(folder, split, ForeignRule(fields or Fields(), on_bad_shard, on_bad_sample, max_bad_share))


def _open_own(folder: Path, split: str, content: Manifest, on_bad_shard: OnBadShard) -> ShardSet:
    infos = content.split(split, folder).shards
    with ThreadPoolExecutor(_CHECKS) as pool:
        faults = list(pool.map(lambda info: _fault(folder, info), infos))
    skipped = [str(fault) for fault in faults if fault is not None]
    _say(skipped)
    if skipped and on_bad_shard == "error":
        raise next(fault for fault in faults if fault is not None)
    sound = [info for info, fault in zip(infos, faults, strict=True) if fault is None]
    if not any(info.samples for info in sound):
        raise DataError(f"{folder}: split {split!r} holds no samples (damaged shards: {len(skipped)})")
    shards = [ShardFile(folder / info.file, info.samples) for info in sound]
    result = ShardSet(shards, Fields(), content.labels, dict(content.classes), nested=True)
    result.levels, result.manifest = content.levels, content
    result.skipped = tuple(skipped)
    result.fingerprint = fingerprint.of_value([content.fingerprint, [path.name for path in result.paths]])
    return result


def check_shard(folder: Path, info: ShardInfo) -> None:
    """Raises DataError unless the shard's size and its index's hash are those of the manifest."""
    path, sidecar = folder / info.file, folder / info.index_file
    try:
        size = path.stat().st_size
    except OSError:
        raise DataError(f"{path}: shard is missing; copy or build it again") from None
    if size != info.bytes:
        refuse_lfs_pointer(path)
        raise DataError(f"{path}: has {size} bytes instead of {info.bytes}; copy or build the shard again")
    try:
        digest = sha256_file(sidecar)
    except OSError as error:
        raise DataError(f"{sidecar}: {error.strerror}; copy or build the shard again") from None
    if digest != info.index_sha256:
        raise DataError(f"{sidecar}: not the index that dataset.json names; copy or build the shard again")


def checked_samples(folder: Path, info: ShardInfo) -> list[TarSample]:
    """Index of a shard whose size, index hash and count are as the manifest says. Raises DataError."""
    check_shard(folder, info)
    samples = index_samples(read_index(folder, info.file), folder / info.index_file)
    if len(samples) != info.samples:
        raise DataError(f"{folder / info.index_file}: {len(samples)} samples, dataset.json says {info.samples}")
    return samples


def _fault(folder: Path, info: ShardInfo) -> DataError | None:
    try:
        check_shard(folder, info)
    except DataError as error:
        return error
    return None


def _say(skipped: Iterable[str]) -> None:
    for message in skipped:
        log.warning("left out with all its samples: %s", message)


def _open_foreign(folder: Path, split: str, rule: ForeignRule) -> ShardSet:
    found, fields = scan_foreign(folder, split, rule), rule.fields
    _say(found.skipped)
    shards = [ShardFile(path, len(samples), samples) for path, samples in found.shards]
    result = ShardSet(shards, fields, fields.labels, found.classes, nested=False)
    result.levels, result.skipped, result.dropped = found.levels, found.skipped, tuple(found.dropped)
    result.fingerprint = found.fingerprint
    return result
