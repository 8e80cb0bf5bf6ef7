"""One shard, checked to its last byte: archive, index, hash, members, records, pictures or latents.

A task of verify.py: faults are collected with their places, memory holds one sample.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.looking.verify_made import lost_to_one_key
from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.shards.codes import CodeLayout
from data_pipelines.shards.files import read_index
from data_pipelines.shards.latent_check import LIMIT, Statistics
from data_pipelines.shards.latents import CODES, LATENT, load_array
from data_pipelines.shards.manifest import ShardInfo
from data_pipelines.shards.shard_set import checked_samples
from data_pipelines.sources.records import Fields, labels_of, picture_member, read_record, record_captions
from data_pipelines.sources.tar_source import TarRule, lost_to_dots
from data_pipelines.tars.digests import digests_of
from data_pipelines.tars.index import TarSample, read_span
from data_pipelines.tars.names import SAFE_KEY
from data_pipelines.tars.walk import walk_tar
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import sha256_file

_KEPT = 100  # problems of one shard that are named; the others are counted
_PICTURE = "picture"


@dataclass(frozen=True)
class VerifyTask:
    number: int  # over all splits
    split: str
    file: str


@dataclass(frozen=True)
class Checks:
    """What all shards share."""

    folder: Path
    fields: Fields
    decode: bool
    infos: Mapping[str, ShardInfo]  # of a data set of ours; empty for foreign tars
    kind: str = "images"
    image_size: int | None = None  # of a data set of ours
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    statistics: Statistics | None = None  # of latents
    codes: CodeLayout | None = None  # that lie beside latents
    largest_z: float = LIMIT


@dataclass
class Report:
    """What was found in one shard. Digests are of the keys, and of the pictures in the same rows."""

    job: VerifyTask
    samples: int = 0
    problems: list[str] = field(default_factory=list)
    more: int = 0  # problems beyond those named
    ignored: int = 0  # members that are no part of a sample
    archives: list[int] = field(default_factory=list)  # keys up to the end of each of the tars that were joined
    unsafe: int = 0  # keys that are no safe file names
    without_caption: int = 0
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))
    pictures: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))

    def add(self, problem: str) -> None:
        if len(self.problems) < _KEPT:
            self.problems.append(problem)
        else:
            self.more += 1


def verify_shard(checks: Checks, job: VerifyTask) -> Report:
    """Never raises for what is wrong with the data."""
    report, path = Report(job), checks.folder / job.file
    if checks.infos:
        _check_index(checks, path, report)
    if not path.is_file():
        return report
    walk = walk_tar(path)
    for problem in walk.problems:
        report.add(problem)
    report.samples, report.ignored, report.archives = len(walk.samples), walk.ignored, walk.archives
    report.keys = digests_of(sample.key.encode("utf-8", "surrogateescape") for sample in walk.samples)
    report.unsafe = sum(not SAFE_KEY.fullmatch(sample.key) for sample in walk.samples)
    usual = _usual_members(checks, walk.samples)
    pictures = np.zeros((len(walk.samples), 2), np.uint64)
    with open(path, "rb") as stream:
        for row, sample in enumerate(walk.samples):
            data = _check_sample(checks, stream.fileno(), sample, usual, report)
            pictures[row] = digests_of([data if data else b"none of %d/%d" % (job.number, row)])[0]
    report.pictures = pictures
    return report


def _check_index(checks: Checks, path: Path, report: Report) -> None:
    info = checks.infos[report.job.file]
    try:
        indexed = checked_samples(checks.folder, info)
    except DataError as error:
        report.add(str(error))
        return
    for dropped in read_index(checks.folder, info.file)["facts"].get("dropped", ()):
        if lost := lost_to_one_key(dropped):
            report.add(f"{path}: {lost}")
    if sha256_file(path) != info.sha256:
        report.add(f"{path}: content differs from its hash in dataset.json; copy or build the shard again")
    if indexed != walk_tar(path).samples:
        report.add(f"{checks.folder / info.index_file}: offsets differ from what lies in the tar")


def _usual_members(checks: Checks, samples: list[TarSample]) -> set[str]:
    """What every sample must have: ours by definition, foreign ones what more than half of their shard have."""
    if checks.infos:
        beside = set() if checks.codes is None else {CODES}
        return {LATENT if checks.kind == "latents" else _PICTURE, "json", "txt", *beside}
    counts = Counter(name for sample in samples for name in _names(sample, checks.fields))
    return {_PICTURE, *(name for name, count in counts.items() if 2 * count > len(samples))}


def _names(sample: TarSample, fields: Fields) -> set[str]:
    picture = picture_member(sample.members, fields)
    return {_PICTURE if name == picture else name for name in sample.members}


def _check_sample(checks: Checks, handle: int, sample: TarSample, usual: set[str], report: Report) -> bytes | None:
    """The picture's or latents' bytes, if they can be read."""
    path = checks.folder / report.job.file
    place, names = f"{path}:{shown(sample.key)}", _names(sample, checks.fields)
    lost = [] if checks.infos else lost_to_dots(str(path), sample, TarRule(checks.fields, whole_names=False))
    for bad in lost:
        report.add(f"{bad.source}: {bad.reason}: {bad.detail.partition(';')[0]}")
    if lost and _PICTURE not in names:
        return None
    for missing in sorted(usual - names):
        report.add(f"{place}: has no {missing if missing == _PICTURE else '.' + missing}")
    try:
        _check_record(checks, handle, sample, report)
    except DataError as error:
        report.add(f"{place}: {error}")
    member = LATENT if checks.kind == "latents" else picture_member(sample.members, checks.fields)
    if member is None or member not in sample.members:
        return None
    try:
        data = read_span(handle, sample.members[member])
        if checks.kind == "latents":
            _check_latents(checks, data, place)
            if checks.codes is not None and CODES in sample.members:
                checks.codes.check(load_array(read_span(handle, sample.members[CODES]), place), place)
        elif checks.decode:
            _check_picture(checks, data)
    except (DataError, DecodeError) as error:
        text = str(error)
        report.add(text if text.startswith(place) else f"{place}: {text}")
        return None
    return data


def _check_record(checks: Checks, handle: int, sample: TarSample, report: Report) -> None:
    record = read_record(handle, sample, checks.fields)
    captions = record_captions(record, checks.fields)
    report.without_caption += not captions
    if not checks.infos:
        labels_of(record, checks.fields)
        return
    if "txt" in sample.members:
        text = read_span(handle, sample.members["txt"])
        if text != (captions[-1] if captions else "").encode("utf-8", "surrogatepass"):
            raise DataError("KEY.txt is not the finest caption of KEY.json")
    for label, value in record.get("labels", {}).items():
        words = checks.classes.get(label)
        known = value in (words or ()) if isinstance(value, str) else words is None or 0 <= value < len(words)
        if not known:
            raise DataError(f"label {label!r} has the unknown class {value!r}")


def _check_picture(checks: Checks, data: bytes) -> None:
    pixels = decode_pixels(data)
    if data.startswith(b"\x89PNG"):
        try:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                image.verify()  # checksums of all chunks; decoding alone skips some
        except (OSError, SyntaxError, ValueError) as error:
            raise DecodeError("damaged image", str(error)) from None
    size = checks.image_size
    if size is not None and pixels.shape[:2] != (size, size):
        raise DecodeError("another size", f"{pixels.shape[1]} x {pixels.shape[0]} pixels instead of {size} x {size}")


def _check_latents(checks: Checks, data: bytes, place: str) -> None:
    latents: NDArray[Any] = load_array(data, place)
    statistics = checks.statistics
    assert statistics is not None
    if latents.shape != statistics.mean.shape or latents.dtype != np.float16:
        raise DataError(f"latents are {latents.dtype} {latents.shape} instead of float16 {statistics.mean.shape}")
    if not np.isfinite(latents).all():
        raise DataError("latents are not finite")
    worst = float(np.abs(statistics.standardised(latents[None])).max())
    if worst > checks.largest_z:
        raise DataError(f"a latent lies {worst:.1f} standard deviations from the mean, the export saw none such")
