"""Pictures that lie as files: read only inside the folder that the user named."""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|pipe:|data:image/")
_LARGEST = 1 << 29  # bytes of one file: a picture beyond half a GiB is a mistake
NO_DOWNLOAD = (
    "seqtok does not download: `img2dataset --url_list FILE --output_format webdataset` does; then prepare its folder"
)


class PictureError(Exception):
    """`reason` is short and counts alike cases together."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def is_address(text: str) -> bool:
    """Whether a path is a URL or a shell pipe."""
    return _ADDRESS.match(text) is not None


def read_picture(root: str, name: str) -> bytes:
    """Content of a file. `root` is a real path. Raises PictureError.

    Relative names lie in `root`. An absolute name, one with `..` or a symbolic link is fine as long as what it leads
    to lies inside `root`. Pipes, devices and folders are not opened.
    """
    if is_address(name):
        raise PictureError("web address, not a file", name[:100])
    if not name or "\0" in name:
        raise PictureError("not a file name", repr(name)[:100])
    try:
        path, flags = _inside(root, os.path.join(root, name))
        handle = os.open(path, flags | os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would wait for ever
        with open(handle, "rb") as stream:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise PictureError("not a file", path[:200])
            if status.st_size > _LARGEST:
                raise PictureError("file too large", f"{status.st_size} bytes, limit {_LARGEST}")
            return stream.read()
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, no file system can
        raise PictureError("not a file name", ascii(name)[:100]) from None
    except IsADirectoryError:
        raise PictureError("not a file", path[:200]) from None
    except OSError as error:
        raise PictureError("file cannot be read", error.strerror or str(error)) from None


def _inside(root: str, path: str) -> tuple[str, int]:
    """Where a path leads, checked to be in `root`, and the flag that lets `open` refuse a link put there since.

    Folders are resolved once: a folder of pictures holds thousands, and resolving costs as much as reading one.
    """
    folder, base = os.path.split(path)
    real, flags = os.path.join(_real_folder(folder), base), os.O_NOFOLLOW
    if base in ("", ".", "..") or os.path.islink(real):
        real, flags = os.path.realpath(path), 0
    if os.path.commonpath([root, real]) != root:
        raise PictureError("path leaves the folder", f"{real[:200]} is not in {root}")
    return real, flags


@lru_cache(maxsize=64)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)
