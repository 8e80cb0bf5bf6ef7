"""What a folder of shards holds, and whether all of it can be read: data sets of ours and foreign tars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_pipelines import manifest as manifests
from data_pipelines.decode import DecodeError, decode_pixels
from data_pipelines.latent_shards import LATENT, load_array
from data_pipelines.manifest import Manifest, ShardInfo
from data_pipelines.records import Fields
from data_pipelines.shards import ShardSet, checked_samples, open_shards
from data_pipelines.tar_index import scan_tar
from data_pipelines.tar_source import IMAGE_EXTENSIONS, find_tars
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import sha256_file

_LOOKED_AT = 1000  # samples per split whose records are read for an overview


@dataclass(frozen=True, kw_only=True)
class SplitOverview:
    """Counts of a split; those of captions and classes are over its first `looked_at` samples."""

    split: str
    samples: int
    shards: int
    bytes: int
    looked_at: int
    members: tuple[str, ...]  # of the first sample
    captions_per_sample: dict[int, int]
    words_per_level: tuple[float, ...]  # mean number of words, coarse to fine
    examples: tuple[str, ...]  # captions of the first sample
    classes: dict[str, int]  # label -> number of distinct values
    dropped: dict[str, int]
    notes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Overview:
    folder: Path
    own: bool  # has a dataset.json
    kind: str
    name: str
    image_size: int | None
    levels: int
    fingerprint: str
    splits: tuple[SplitOverview, ...]


@dataclass
class Verdict:
    """What `verify` found. `problems` names each fault with its place; empty means that all is well."""

    shards: int = 0
    samples: int = 0
    problems: list[str] = field(default_factory=list)


def overview(folder: Path, fields: Fields | None = None) -> Overview:
    """Raises DataError when there is no data set or a shard is damaged."""
    folder = Path(folder)
    own = _own(folder)
    splits = sorted(own.splits) if own else sorted(find_tars(folder))
    kind = own.kind if own else "images"
    parts = []
    for split in splits:
        shards = open_shards(folder, split, fields, kind=kind)
        parts.append(_split_overview(shards, split, own))
    return Overview(
        folder=folder,
        own=own is not None,
        kind=kind,
        name=own.name if own else folder.name,
        image_size=own.image_size if own else None,
        levels=own.levels if own else max(max(part.captions_per_sample) for part in parts),
        fingerprint=own.fingerprint if own else "",
        splits=tuple(parts),
    )


def verify(
    folder: Path,
    *,
    decode: bool = True,
    fields: Fields | None = None,
    on_shard: Callable[[str], None] = lambda shard: None,
) -> Verdict:
    """Check every shard: size, hash, offsets, keys, records and (with `decode`) pictures or latents.

    Faults are collected, not raised; a DataError means that there is nothing to verify.
    """
    folder = Path(folder)
    own = _own(folder)
    verdict = Verdict()
    if own:
        names = {split: [info.file for info in part.shards] for split, part in own.splits.items()}
        infos = {info.file: info for part in own.splits.values() for info in part.shards}
    else:
        names = {split: [path.name for path in paths] for split, paths in find_tars(folder).items()}
        infos = {}
    for split, files in names.items():
        seen: dict[str, str] = {}
        for file in files:
            on_shard(file)
            verdict.shards += 1
            _verify_shard(folder, file, infos.get(file), seen, verdict)
        _verify_samples(folder, split, own, fields, decode, verdict)
    return verdict


def _own(folder: Path) -> Manifest | None:
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    return manifests.read_manifest(folder) if (folder / manifests.FILE).is_file() else None


def _split_overview(shards: ShardSet, split: str, own: Manifest | None) -> SplitOverview:
    count = min(len(shards), _LOOKED_AT)
    records = [shards.record(index) for index in range(count)]
    numbers = Counter(len(record.captions) for record in records)
    levels = range(max(numbers))
    words = [[len(r.captions[k].split()) for r in records if k < len(r.captions)] for k in levels]
    info = own.splits[split] if own else None
    return SplitOverview(
        split=split,
        samples=len(shards),
        shards=len(shards.paths),
        bytes=sum(path.stat().st_size for path in shards.paths),
        looked_at=count,
        members=shards.members(0),
        captions_per_sample=dict(sorted(numbers.items())),
        words_per_level=tuple(float(np.mean(level)) for level in words),
        examples=records[0].captions,
        classes={label: len({r.labels[label] for r in records}) for label in shards.labels},
        dropped=dict(info.dropped) if info else dict(Counter(bad.reason for bad in shards.dropped)),
        notes=dict(info.notes) if info else {},
    )


def _verify_shard(folder: Path, file: str, info: ShardInfo | None, seen: dict[str, str], verdict: Verdict) -> None:
    try:
        samples = scan_tar(folder / file)
        if info is not None:
            indexed = checked_samples(folder, info)
            if sha256_file(folder / file) != info.sha256:
                raise DataError(f"{folder / file}: content differs from its hash in dataset.json")
            if indexed != samples:
                raise DataError(f"{folder / info.index_file}: offsets differ from what lies in the tar")
    except DataError as error:
        verdict.problems.append(str(error))
        return
    verdict.samples += len(samples)
    for sample in samples:
        if sample.key in seen:
            verdict.problems.append(f"{folder / file}: key {sample.key} is also in {seen[sample.key]}")
        seen[sample.key] = file


def _verify_samples(
    folder: Path, split: str, own: Manifest | None, fields: Fields | None, decode: bool, verdict: Verdict
) -> None:
    kind = own.kind if own else "images"
    try:
        shards = open_shards(folder, split, fields, on_bad_shard="skip", kind=kind)
    except DataError as error:
        verdict.problems.append(str(error))
        return
    verdict.problems += [f"{folder / bad.source}: {bad.reason} {bad.detail}" for bad in shards.dropped]
    for index in range(len(shards)):
        try:
            shards.record(index)
            if decode:
                _read_content(shards, index, kind)
        except (DataError, DecodeError) as error:
            text = str(error)
            verdict.problems.append(text if isinstance(error, DataError) else f"{shards.place(index)}: {text}")


def _read_content(shards: ShardSet, index: int, kind: str) -> None:
    if kind == "images":
        decode_pixels(shards.read(index, IMAGE_EXTENSIONS))
        return
    place = shards.place(index)
    if not np.isfinite(load_array(shards.read(index, (LATENT,)), place)).all():
        raise DataError(f"{place}: latents are not finite")
