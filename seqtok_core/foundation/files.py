"""Files that are complete or absent: atomic writes, hashes, and locks that die with their owner."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import filelock

from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError, StorageError
from seqtok_core.foundation.machine import file_size_limit

_CHUNK = 1 << 20  # bytes read at once while hashing
LFS_POINTER = "a git-lfs pointer, not the file itself; fetch it: `git lfs pull`"
_POINTER = 64  # bytes that tell one
_LOGS = (".log", ".out", ".err")
_LONG = 200  # characters of a path in a message, beside another one
_IN_THE_WAY = {
    errno.EEXIST: "a file, or a link to nothing, is in the way",
    errno.ENOTDIR: "a file is in the way",
    errno.EISDIR: "a folder is in the way",
}
_NOT_WRITABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
    *(errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, *_IN_THE_WAY),
)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write beside `path`, flush to the disk, then rename: readers see the old file or the whole new one."""
    path = Path(path)
    with storage_errors(path):
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
        with storage_errors(path):
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
        refuse_lfs_pointer(path)
        raise DataError(f"{path}: not readable as JSON ({error})") from None


def is_lfs_pointer(start: bytes) -> bool:
    """Whether a file that begins like this is what git leaves in the place of a large file that it did not fetch."""
    return start.startswith(b"version https://git-lfs.github.com/spec/")


def refuse_lfs_pointer(path: Path) -> None:
    """Raises DataError for one; a file that is missing or cannot be opened is somebody else's matter."""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        if is_lfs_pointer(stream.read(_POINTER)):
            raise DataError(f"{path}: {LFS_POINTER}")


def is_log(path: Path) -> bool:
    """A file of a name that shells and schedulers give to what a command says: it may lie in the folder that the
    command is to fill."""
    return path.suffix in _LOGS and path.is_file()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def leftovers_of(path: Path) -> list[Path]:
    """What writers of `path` that were killed have left beside it."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{8 * '?'}.tmp"))


def require_own_place(folder: Path) -> None:
    """Before a folder is cleared: raise ConfigError where it is, or holds, a home or the folder we work in."""
    place = Path(os.path.realpath(folder))
    for kept, what in ((Path.cwd(), "the folder that this command runs in"), (Path.home(), "your home folder")):
        if place in (kept.resolve(), *kept.resolve().parents):
            raise ConfigError(f"{folder}: is or holds {what}, which `overwrite` does not clear; name another folder")


def fsync_folder(path: Path) -> None:
    """Make a rename in `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what keeps a file or folder from being written into a StorageError that says where, and of a full disk how
    much is free."""
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
        if error.errno in _NOT_WRITABLE:
            where = str(error.filename or "")
            told = where in ("", str(path)) or where.endswith(".tmp") or len(where) > _LONG
            place = "" if told else f" at {where}"
            reason = _IN_THE_WAY.get(error.errno, error.strerror)
            raise StorageError(f"{path}: cannot be written ({reason}{place}); choose another folder") from error
        raise


def _too_large() -> str:
    limit = file_size_limit()
    if limit is None:
        return "the file is larger than this file system takes; choose a folder on another one"
    return (
        f"the file is larger than this process may write ({limit / 1024:.0f} KiB, RLIMIT_FSIZE); lift the limit "
        "(`ulimit -f unlimited`) and start again"
    )


def require_place(path: Path, kind: Literal["file", "folder"]) -> None:
    """Before long work whose result goes to `path`. Raises ConfigError where what is there is of the other kind,
    StorageError where nothing can be written."""
    path = Path(path)
    with storage_errors(path):
        if kind == "file" and path.is_dir():
            raise ConfigError(f"{path}: a folder, where a file is to be written; name a file in it")
        if kind == "folder" and os.path.lexists(path) and not path.is_dir():
            what = f"a link to {os.readlink(path)}, which is no folder" if path.is_symlink() else "a file"
            raise ConfigError(f"{path}: {what}, where a folder is to be written; choose another name")
        place = next((p for p in (path, *path.parents) if p.is_dir()), Path("/"))
        first = path.parts[len(place.parts)] if place != path and len(path.parts) > len(place.parts) else ""
        if first and path.parent != place and os.path.lexists(place / first):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place / first))
        if not os.access(place, os.W_OK | os.X_OK) and (kind == "folder" or not path.is_file()):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


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
        owner = path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise SeqtokError(f"{folder}: in use by {owner}; wait for it or choose another folder") from None
    try:
        with storage_errors(path):
            path.write_text(
                f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n",
                encoding="utf-8",
            )
        yield
    finally:
        lock.release()
