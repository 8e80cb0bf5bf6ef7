"""Samples of a tar that can only be read from front to end, with every cut noticed.

webdataset reads a tar that was cut between two members, or that has a damaged header, to that place and says nothing;
so its openers are used and its reader is not.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Collection, Iterator
from typing import IO

from data_pipelines.tars.index import split_name
from data_pipelines.tars.remote import open_shard
from seqtok_core.foundation.errors import DataError

_BUFFER = 512 * tarfile.BLOCKSIZE  # bytes asked for at once
_LARGEST = 256 * 2**20  # bytes of a member; larger ones are not what this reads
StreamedSample = tuple[str, dict[str, bytes]]  # key, extension -> content


def stream_samples(name: str, extensions: Collection[str]) -> Iterator[StreamedSample]:
    """Whole samples in order, with these members only. Raises DataError naming the shard: cut, damaged, failed."""
    stream = open_shard(name)
    try:
        yield from _grouped(stream, name, frozenset(extensions))
    except BaseException:
        with contextlib.suppress(OSError):
            stream.close()
        raise
    try:
        stream.close()
    except OSError as error:
        raise DataError(f"{name}: the source failed ({error})") from None


def _grouped(stream: IO[bytes], name: str, extensions: frozenset[str]) -> Iterator[StreamedSample]:
    """A sample is handed out when the next one, or the archive's end, shows that it is whole."""
    seen: set[str] = set()
    key, members = "", dict[str, bytes]()
    for member, content in _members(stream, name, extensions):
        found, extension = split_name(member)
        if not extension:
            continue
        if found != key:
            if members:
                yield key, members
            if found in seen:
                raise DataError(f"{name}: key {found!r} comes twice; members of a key must lie together")
            seen.add(found)
            key, members = found, {}
        if content is None:
            continue
        if extension in members:
            raise DataError(f"{name}: {key}.{extension} comes twice")
        members[extension] = content
    if members:
        yield key, members


def _members(stream: IO[bytes], name: str, extensions: frozenset[str]) -> Iterator[tuple[str, bytes | None]]:
    source = _Remembering(stream)
    try:
        with tarfile.open(name=None, mode="r|", fileobj=source, bufsize=_BUFFER) as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would remember every member
                if not info.isreg():
                    continue
                if split_name(info.name)[1] not in extensions:
                    yield info.name, None
                    continue
                if info.size > _LARGEST:
                    raise DataError(f"{name}: {info.name} has {info.size} bytes; at most {_LARGEST} are read")
                content = tar.extractfile(info)
                assert content is not None
                yield info.name, content.read()
            end = tar.offset
    except (tarfile.TarError, OSError, OverflowError, ValueError, UnicodeError) as error:
        raise DataError(f"{name}: damaged or cut tar ({error})") from None
    block = source.block(end)
    if block != bytes(tarfile.BLOCKSIZE):
        what = "ends too early" if len(block) < tarfile.BLOCKSIZE else "has a damaged header"
        raise DataError(f"{name}: the tar {what} at byte {end}")


class _Remembering(io.RawIOBase):
    """Keeps the last bytes that were read, to see how the archive ended."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._end = stream, 0
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._last = self._last[-2 * tarfile.BLOCKSIZE :] + data if len(data) < size else data
        self._end += len(data)
        return data

    def block(self, offset: int) -> bytes:
        start = offset - (self._end - len(self._last))
        assert start >= 0, "the end was read before"
        return self._last[start : start + tarfile.BLOCKSIZE]
