"""Samples of a tar that can only be read from front to end, with every cut noticed.

webdataset reads a tar that was cut between two members, or that has a damaged header, to that place and says nothing;
so its rules are kept and its reader is not used.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Collection, Iterator
from typing import IO

from data_pipelines.tars.index import GZIP, GZIPPED, TOGETHER, is_litter, split_name
from data_pipelines.tars.remote import Command, open_shard
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import LFS_POINTER, is_lfs_pointer

_BUFFER = 512 * tarfile.BLOCKSIZE  # bytes asked for at once
_LARGEST = 256 * 2**20  # bytes of a member; larger ones are not what this reads
StreamedSample = tuple[str, dict[str, bytes | None]]  # key, extension -> content; None: not looked at


def stream_samples(name: str, extensions: Collection[str]) -> Iterator[StreamedSample]:
    """Whole samples in order, with the content of these members only. Raises DataError naming the shard that is cut,
    damaged, or whose source failed."""
    with contextlib.closing(open_shard(name)) as stream:
        try:
            yield from _grouped(stream, name, frozenset(extensions))
        except DataError:
            _refuse_failed(stream, name)  # a tar that a command did not write to its end looks damaged
            raise
        _refuse_failed(stream, name)


def _refuse_failed(stream: IO[bytes], name: str) -> None:
    if isinstance(stream, Command) and (fault := stream.fault()):
        raise DataError(f"{name}: {fault}") from None


def _grouped(stream: IO[bytes], name: str, extensions: frozenset[str]) -> Iterator[StreamedSample]:
    """A sample is handed out when the next one, or the archive's end, shows that it is whole."""
    seen: set[str] = set()
    key, members = "", dict[str, bytes | None]()
    for member, content in _members(stream, name, extensions):
        found, extension = split_name(member)
        if not extension or is_litter(member):
            continue
        if found != key:
            if members:
                yield key, members
            if found in seen:
                raise DataError(f"{name}: key {shown(found)!r} comes twice; {TOGETHER}")
            seen.add(found)
            key, members = found, {}
        if extension in members:
            raise DataError(f"{name}: {shown(key)}.{extension} comes twice")
        members[extension] = content
    if members:
        yield key, members


def _members(stream: IO[bytes], name: str, extensions: frozenset[str]) -> Iterator[tuple[str, bytes | None]]:
    """Of all archives, where several were joined."""
    source = _Remembering(stream, name)
    start: int | None = 0
    while start is not None:
        try:
            with _open(source, name, start) as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would remember every member
                    if not info.isreg():
                        continue
                    if split_name(info.name)[1] not in extensions:
                        yield info.name, None
                        continue
                    if info.size > _LARGEST:
                        raise DataError(
                            f"{name}: {shown(info.name)} has {info.size} bytes; at most {_LARGEST} are read"
                        )
                    content = tar.extractfile(info)
                    assert content is not None
                    yield info.name, content.read()
                end = start + tar.offset
        except (tarfile.TarError, OverflowError, ValueError, UnicodeError) as error:
            raise DataError(f"{name}: damaged or cut tar ({error})") from None
        block = source.back_to(end)
        if block != bytes(tarfile.BLOCKSIZE):
            what = "ends too early" if len(block) < tarfile.BLOCKSIZE else "has a damaged header"
            raise DataError(f"{name}: the tar {what} at byte {end}")
        start = source.next_archive()


def _open(source: _Remembering, name: str, start: int) -> tarfile.TarFile:
    """The archive that begins at byte `start`."""
    try:
        return tarfile.open(name=None, mode="r|", fileobj=source, bufsize=_BUFFER)  # reads the first header
    except tarfile.TarError:
        if is_lfs_pointer(source.begins):
            raise DataError(f"{name}: {LFS_POINTER}") from None
        if source.begins.startswith(GZIP):
            raise DataError(f"{name}: {GZIPPED}, or read it as `pipe:gunzip -c FILE`") from None
        if not start:
            raise
        raise DataError(f"{name}: the tar is followed by what is no tar at byte {start}") from None


class _Remembering(io.RawIOBase):
    """Keeps the last bytes that were read, to see how an archive ended and to go on behind it."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name, self._end = stream, name, 0  # bytes handed out
        self._last = self._again = b""
        self.begins = b""  # the first bytes of all

    def read(self, size: int = -1) -> bytes:
        again, self._again = self._again[:size], self._again[size:]
        data = again or self._fresh(size)
        if again and len(again) < size:
            data += self._fresh(size - len(again))
        self._last = self._last[-2 * tarfile.BLOCKSIZE :] + data if len(data) < size else data
        self.begins = self.begins or data[: tarfile.BLOCKSIZE]
        self._end += len(data)
        return data

    def _fresh(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:  # each file system of fsspec has errors of its own
            raise DataError(f"{self._name}: the source failed ({error or type(error).__name__})") from None

    def back_to(self, offset: int) -> bytes:
        """What is read next begins at this byte -> the block there."""
        start = offset - (self._end - len(self._last))
        assert start >= 0, "the end was read before"
        self._again, self._end = self._last[start:] + self._again, offset
        self._last = b""
        return self._again[: tarfile.BLOCKSIZE]

    def next_archive(self) -> int | None:
        """Reads empty blocks -> where the next archive begins; None where nothing else follows that can be a header."""
        while len(block := self._block()) == tarfile.BLOCKSIZE:
            if block.strip(b"\0"):
                start = self._end - len(block)
                self._again, self._end = block + self._again, start
                return start
        return None

    def _block(self) -> bytes:
        """The next block; shorter at the end alone, even of a source that hands out less than it is asked for."""
        block = b""
        while len(block) < tarfile.BLOCKSIZE and (more := self.read(tarfile.BLOCKSIZE - len(block))):
            block += more
        return block
