"""All that can be read of a tar, damaged or not, and what is wrong with it, with the place of each fault.

Where `scan_tar` stops at the first fault, this goes on: verifying says everything at once.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from data_pipelines.tars.index import (
    GZIP,
    GZIPPED,
    TOGETHER,
    Span,
    TarSample,
    is_litter,
    next_archive,
    span_of,
    split_name,
)
from seqtok_core.foundation.errors import shown
from seqtok_core.foundation.files import LFS_POINTER, is_lfs_pointer

_END = bytes(2 * tarfile.BLOCKSIZE)  # two empty blocks close an archive


@dataclass
class Walk:
    """Whole members by key, in file order; of a member that comes twice the first."""

    samples: list[TarSample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    archives: list[int] = field(default_factory=list)  # keys up to the end of each tar; several where some were joined
    ignored: int = 0  # links, devices, pipes, litter and members without an extension: nothing reads them


def walk_tar(path: Path) -> Walk:
    """Reads headers only."""
    found = Walk()
    try:
        with open(path, "rb") as stream:
            members, fault = _members(stream, os.fstat(stream.fileno()).st_size, found)
    except OSError as error:
        found.problems.append(f"{path}: cannot be read ({error.strerror or error})")
        return found
    _group(members, str(path), found)
    if fault:
        found.problems.append(f"{path}: {fault}; copy or build the shard again")
    return found


def _members(stream: BinaryIO, size: int, found: Walk) -> tuple[list[tuple[str, Span | None]], str]:
    """Whole members (name; span, None for what has no content), and what ends the archive too early, or ""."""
    members: list[tuple[str, Span | None]] = []
    if not size:
        return members, "empty file"
    start: int | None = 0
    while start is not None:
        stream.seek(start)
        fault = _archive(stream, size, members)
        if fault:
            return members, fault
        found.archives.append(len({split_name(member)[0] for member, _ in members}))
        start = next_archive(stream)
    return members, ""


def _archive(stream: BinaryIO, size: int, members: list[tuple[str, Span | None]]) -> str:
    """Adds the members of one archive, and leaves the stream behind it -> what is wrong with it."""
    start, before = stream.tell(), len(members)
    fault = _read(stream, size, members)
    follows = fault and start and len(members) == before
    return f"what follows the tar's end, from byte {start} of {size} on, is no tar" if follows else fault


def _read(stream: BinaryIO, size: int, members: list[tuple[str, Span | None]]) -> str:
    last, end = "", stream.tell()
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while True:
                try:
                    info = tar.next()
                except (tarfile.TarError, OverflowError, ValueError, UnicodeError):
                    break
                if info is None:
                    break
                end = tar.offset
                if span_of(info) and info.offset_data + info.size > size:
                    stop = info.offset_data + info.size
                    return f"cut inside {shown(info.name)}, which ends at byte {stop}, at byte {size}"
                last = info.name
                if not info.isdir():
                    members.append((info.name, span_of(info)))
    except (tarfile.TarError, OverflowError, ValueError, UnicodeError) as error:
        stream.seek(0)
        begins = stream.read(tarfile.BLOCKSIZE)
        if begins.startswith(GZIP):
            return GZIPPED
        return LFS_POINTER if is_lfs_pointer(begins) else f"not a tar ({error})"
    return _ending(stream, size, end, last)


def _ending(stream: BinaryIO, size: int, end: int, last: str) -> str:
    stream.seek(end)
    tail = stream.read(len(_END))
    if tail == _END:
        return ""
    after = f"after {last}" if last else "at its first member"
    if len(tail) < len(_END) and not tail.strip(b"\0"):
        return f"ends at byte {size} {after} without the blocks that close a tar: what followed is lost"
    return f"damaged header at byte {end} of {size}, {after}: what follows cannot be read"


def _group(members: Iterable[tuple[str, Span | None]], name: str, found: Walk) -> None:
    seen: dict[str, int] = {}
    current = ""
    for member, span in members:
        key, extension = split_name(member)
        litter = is_litter(member)
        found.ignored += not extension or span is None or litter
        if not extension or litter:
            continue
        if key != current or key not in seen:
            current = key
            if key in seen:
                found.problems.append(f"{name}: key {shown(key)!r} comes again{_at(span)}; {TOGETHER}")
                continue
            seen[key] = len(found.samples)
            found.samples.append(TarSample(key, {}))
        sample = found.samples[seen[key]]
        if extension in sample.members:
            found.problems.append(f"{name}: {shown(key)}.{extension} comes again{_at(span)}")
        elif span is not None:
            sample.members[extension] = span


def _at(span: Span | None) -> str:
    return f" at byte {span[0]}" if span else ""
