"""What lies where in a tar: offsets of its members, and whether the archive is whole.

Python's tarfile ends in silence at a damaged header or at a cut between two members; here both are errors.
The samples of a shard are tables of offsets: a Python object each would cost hundreds of bytes, here a sample costs its
key and 18 bytes per member.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.packed import pack

OnBadShard = Literal["error", "skip"]
Span = tuple[int, int]  # offset of the content in the tar, length; bytes
_END = bytes(2 * tarfile.BLOCKSIZE)  # two empty blocks close an archive
_PADDING = 20 * tarfile.BLOCKSIZE  # what archives are filled up to, and so is read at once
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class TarSample:
    """Members of one key: extension (without the leading dot) -> span."""

    key: str
    members: dict[str, Span]


def scan_tar(path: Path, litter: list[str] | None = None) -> list[TarSample]:
    """Samples in file order. Raises DataError naming the shard when it is cut, damaged or re-uses a key. What a system
    left there (`is_litter`) is no sample; its names are added to `litter`."""
    try:
        with open(path, "rb") as stream:
            return scan_stream(stream, str(path), litter)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def scan_stream(stream: BinaryIO, name: str, litter: list[str] | None = None) -> list[TarSample]:
    """As `scan_tar`, for an open file; `name` is used in messages."""
    members: list[tuple[str, Span | None]] = []
    start: int | None = 0
    while start is not None:
        stream.seek(start)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                members += _members(tar)
                end = tar.offset
        except (tarfile.TarError, OverflowError, ValueError, UnicodeError) as error:
            stream.seek(0)
            gzipped = stream.read(2) == b"\x1f\x8b"
            if gzipped:
                raise DataError(f"{name}: compressed with gzip, whatever its name says; `gunzip` it") from None
            raise DataError(f"{name}: damaged or cut tar ({error})") from None
        stream.seek(end)
        tail = stream.read(len(_END))
        if tail != _END:
            size = stream.seek(0, os.SEEK_END)
            what = "ends too early" if len(tail) < len(_END) else "has a damaged header"
            what = "is followed by what is no tar" if start and end == start else what
            raise DataError(f"{name}: the tar {what} at byte {end} of {size}; copy or build the shard again")
        start = next_archive(stream)
    if litter is not None:
        litter += [member for member, _ in members if is_litter(member)]
    return _group((found for found in members if not is_litter(found[0])), name)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, Span | None]]:
    for info in tar:
        if not info.isdir():
            yield info.name, span_of(info)
        tar.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every header, some 700 bytes each


def next_archive(stream: BinaryIO) -> int | None:
    """Behind the blocks that close an archive: the offset of the next one, where tars were joined (`cat a.tar b.tar`),
    or None: nothing follows but empty blocks, and at most a few bytes that can be no header."""
    at = stream.tell()
    while block := stream.read(_PADDING):
        found = len(block) - len(block.lstrip(b"\0"))
        if found < len(block):
            start = at + found // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            return start if stream.seek(0, os.SEEK_END) - start >= tarfile.BLOCKSIZE else None
        at += len(block)
    return None


def is_litter(member: str) -> bool:
    """What macOS and Windows put beside files: `._name`, .DS_Store, __MACOSX/, Thumbs.db, desktop.ini."""
    folder, _, base = member.rpartition("/")
    return base.startswith("._") or base in _LITTER or "__MACOSX" in folder.split("/")


def span_of(info: tarfile.TarInfo) -> Span | None:
    """None for links, devices and pipes, which are never followed, and for sparse files, which have no span."""
    return (info.offset_data, info.size) if info.isreg() and info.sparse is None else None


def split_name(member: str) -> tuple[str, str]:
    """`a/b.c.png` -> (`a/b`, `c.png`): the key ends at the first dot of the last part, as in webdataset."""
    folder, slash, base = member.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _group(members: Iterable[tuple[str, Span | None]], name: str) -> list[TarSample]:
    samples: list[TarSample] = []
    seen: set[str] = set()
    for member, span in members:
        key, extension = split_name(member)
        if not extension:
            continue
        if not samples or samples[-1].key != key:
            if key in seen:
                raise DataError(f"{name}: key {shown(key)!r} comes twice; members of a key must lie together")
            seen.add(key)
            samples.append(TarSample(key, {}))
        if extension in samples[-1].members:
            raise DataError(f"{name}: {shown(key)}.{extension} comes twice")
        if span is not None:
            samples[-1].members[extension] = span
    return samples


def read_span(handle: int, span: Span) -> bytes:
    """Raises DataError when the file is shorter than its index says."""
    data = os.pread(handle, span[1], span[0])
    if len(data) != span[1]:
        raise DataError(f"shard ends at byte {span[0] + len(data)}, {span[1] - len(data)} bytes too early")
    return data


class PackedSamples:
    """Samples of one shard in file order; indexing gives TarSample."""

    def __init__(self, samples: Sequence[TarSample]) -> None:
        self._keys = pack(sample.key.encode("utf-8", "surrogatepass") for sample in samples)
        self._ends = np.cumsum([len(sample.members) for sample in samples], dtype=np.int64)
        numbers: dict[str, int] = {}
        for sample in samples:
            for extension in sample.members:
                numbers.setdefault(extension, len(numbers))
        kind = np.uint16 if len(numbers) < 2**16 else np.uint32
        self._extensions = tuple(numbers)  # few, as a rule: each is written once
        self._which = np.array([numbers[e] for sample in samples for e in sample.members], dtype=kind)
        spans = [span for sample in samples for span in sample.members.values()]
        self._spans: NDArray[np.int64] = np.array(spans, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> TarSample:
        """0 <= index < len."""
        first, end = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        names = self._which[first:end].tolist()
        members = {
            self._extensions[name]: (start, size)
            for name, (start, size) in zip(names, self._spans[first:end].tolist(), strict=True)
        }
        return TarSample(self.key(index), members)

    def key(self, index: int) -> str:
        return self._keys[index].decode("utf-8", "surrogatepass")

    @property
    def nbytes(self) -> int:
        return (
            self._keys.blob.nbytes
            + self._keys.ends.nbytes
            + self._ends.nbytes
            + self._which.nbytes
            + self._spans.nbytes
        )
