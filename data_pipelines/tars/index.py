"""What lies where in a tar: offsets of its members, and whether the archive is whole.

Python's tarfile ends in silence at a damaged header or at a cut between two members; here both are errors.
The samples of a shard are tables of offsets: a Python object each would cost hundreds of bytes, here a sample costs its
key and 18 bytes per member.
"""

from __future__ import annotations

import os
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import LFS_POINTER, is_lfs_pointer
from seqtok_core.foundation.packed import pack

OnBadShard = Literal["error", "skip"]
Span = tuple[int, int]  # offset of the content in the tar, length; bytes
_END = bytes(2 * tarfile.BLOCKSIZE)  # two empty blocks close an archive
_PADDING = 20 * tarfile.BLOCKSIZE  # what archives are filled up to, and so is read at once
GZIP = b"\x1f\x8b"  # begins what it has compressed
GZIPPED = "compressed with gzip, whatever its name says; `gunzip` it"
TOGETHER = "members of a key must lie together; `tar --sort=name` packs them so"
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class TarSample:
    """Members of one key: extension (without the leading dot) -> span."""

    key: str
    members: dict[str, Span]


def scan_tar(path: Path, litter: list[str] | None = None) -> list[TarSample]:
    """All of `read_samples` at once."""
    return list(read_samples(path, litter))


def scan_stream(stream: BinaryIO, name: str, litter: list[str] | None = None) -> list[TarSample]:
    """As `scan_tar`, for an open file; `name` is used in messages."""
    return list(_grouped(_all_members(stream, name), name, [] if litter is None else litter))


def read_samples(path: Path, litter: list[str] | None = None) -> Iterator[TarSample]:
    """Samples in file order, one by one. Raises DataError naming the shard when it is cut, damaged or re-uses a key.

    What a system left there (`is_litter`) is no sample; its names are added to `litter`.
    """
    try:
        with open(path, "rb") as stream:
            yield from _grouped(_all_members(stream, str(path)), str(path), [] if litter is None else litter)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _all_members(stream: BinaryIO, name: str) -> Iterator[tuple[str, Span | None]]:
    """Of all archives, where several were joined."""
    start: int | None = 0
    while start is not None:
        stream.seek(start)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                yield from _members(tar)
                end = tar.offset
        except (tarfile.TarError, OverflowError, ValueError, UnicodeError) as error:
            stream.seek(0)
            begins = stream.read(tarfile.BLOCKSIZE)
            if is_lfs_pointer(begins):
                raise DataError(f"{name}: {LFS_POINTER}") from None
            if begins.startswith(GZIP):
                raise DataError(f"{name}: {GZIPPED}") from None
            raise DataError(f"{name}: damaged or cut tar ({error})") from None
        stream.seek(end)
        tail = stream.read(len(_END))
        if tail != _END:
            size = stream.seek(0, os.SEEK_END)
            what = "ends too early" if len(tail) < len(_END) else "has a damaged header"
            what = "is followed by what is no tar" if start and end == start else what
            raise DataError(f"{name}: the tar {what} at byte {end} of {size}; copy or build the shard again")
        start = next_archive(stream)


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


def _grouped(members: Iterable[tuple[str, Span | None]], name: str, litter: list[str]) -> Iterator[TarSample]:
    """A sample is handed out when the next one, or the archive's end, shows that it is whole."""
    sample: TarSample | None = None
    seen: set[int] = set()  # hashes of keys: half the memory of the keys
    for member, span in members:
        key, extension = split_name(member)
        if is_litter(member):
            litter.append(member)
            continue
        if not extension:
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            if hash(key) in seen:
                raise DataError(f"{name}: key {shown(key)!r} comes twice; {TOGETHER}")
            seen.add(hash(key))
            sample = TarSample(key, {})
        if extension in sample.members:
            raise DataError(f"{name}: {shown(key)}.{extension} comes twice")
        if span is not None:
            sample.members[extension] = span
    if sample is not None:
        yield sample


def read_span(handle: int, span: Span) -> bytes:
    """Raises DataError when the file is shorter than its index says."""
    data = os.pread(handle, span[1], span[0])
    if len(data) != span[1]:
        raise DataError(f"shard ends at byte {span[0] + len(data)}, {span[1] - len(data)} bytes too early")
    return data


class PackedSamples:
    """Samples of one shard in file order; indexing gives TarSample."""

    def __init__(self, samples: Iterable[TarSample]) -> None:
        """Takes a generator: of what it yields only bytes are kept."""
        ends, which, spans, numbers = array("q"), array("I"), array("q"), dict[str, int]()
        self._keys = pack(_taken(samples, ends, which, spans, numbers))
        self._extensions = tuple(numbers)  # few, as a rule: each is written once
        self._ends: NDArray[np.int64] = np.array(ends, dtype=np.int64)
        self._which = np.array(which, dtype=np.uint16 if len(numbers) < 2**16 else np.uint32)
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

    def __iter__(self) -> Iterator[TarSample]:
        return (self[index] for index in range(len(self)))

    def names(self) -> Iterator[bytes]:
        """Keys as they are stored, in UTF-8."""
        return (self._keys[index] for index in range(len(self)))

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


def _taken(
    samples: Iterable[TarSample], ends: array[int], which: array[int], spans: array[int], numbers: dict[str, int]
) -> Iterator[bytes]:
    """Keys, while the tables are filled."""
    for sample in samples:
        for extension, span in sample.members.items():
            which.append(numbers.setdefault(extension, len(numbers)))
            spans.extend(span)
        ends.append(len(which))
        yield sample.key.encode("utf-8", "surrogatepass")
