"""Files that are complete or absent: atomic writes, hashes, and locks that die with their owner."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import filelock

from seqtok_core.foundation.errors import DataError, SeqtokError, StorageError
from seqtok_core.foundation.machine import file_size_limit

_CHUNK = 1 << 20  # bytes read at once while hashing


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write beside `path`, flush to the disk, then rename: readers see the old file or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with storage_errors(path), os.fdopen(handle, mode, encoding=encoding, newline=newline) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from a user's colleagues
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Atomic, sorted and indented, so that equal values give equal bytes."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_json(path: Path) -> Any:
    """Raises DataError naming the file when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fsync_folder(path: Path) -> None:
    """Make a rename in `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a StorageError that says where and how much is free."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise StorageError(f"{path}: {_too_large()}") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            folder = next((p for p in [Path(path), *Path(path).parents] if p.exists()), Path("/"))
            free = shutil.disk_usage(folder).free
            raise StorageError(
                f"{path}: the disk is full ({free / 2**20:.0f} MiB free); free some space and start again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        raise


def _too_large() -> str:
    limit = file_size_limit()
    if limit is None:
        return "the file is larger than this file system takes; choose a folder on another one"
    return (
        f"the file is larger than this process may write ({limit / 1024:.0f} KiB, RLIMIT_FSIZE); lift the limit "
        "(`ulimit -f unlimited`) and start again"
    )


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder`/run.lock (an flock: it ends with its process). A second holder gets a SeqtokError."""
    folder = Path(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.lock"
    lock = filelock.FileLock(path)
    try:
        with storage_errors(path):
            lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = path.read_text(encoding="utf-8").strip() or "another process"
        raise SeqtokError(f"{folder}: in use by {owner}; wait for it or choose another folder") from None
    try:
        path.write_text(
            f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n",
            encoding="utf-8",
        )
        yield
    finally:
        lock.release()
