"""Reading the file of a picture, and none outside the folder that the user named.

Pipes, devices and folders are never opened; a web address is no file. A cell may be the picture, as base64 text.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from functools import lru_cache
from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|pipe:")
_LARGEST = 1 << 29  # bytes of one file: a picture beyond half a GiB is a mistake
_STARTS = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\0\0\0\x0cjP  ",
    b"\0\0\0\x0cJXL ",
    b"\xff\x0a",
)  # of PNG, JPEG ...
_LONG = 100  # characters: a picture as base64 text has more, and a path that begins like one has a dot
_URI = re.compile(r"^data:image/[^,]{0,100},")
_BASE64 = re.compile(
    r"data:image/|/9j/|iVBORw0KG|R0lGOD|UklGR|Qk[0-3]|SUkq|TU0A|AAAA[\w+/]{4}eXB"
)  # JPEG, PNG, GIF ...
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


def is_base64(text: str) -> bool:
    """Whether a cell holds a picture as base64 text, with or without `data:image/...;base64,` before it."""
    match = _BASE64.match(text)
    return match is not None and (match[0].startswith("data:") or (len(text) >= _LONG and "." not in text))


def picture_in_text(text: str) -> bytes:
    """The bytes of a picture that is base64 text. Raises PictureError where it is damaged."""
    packed = "".join(_URI.sub("", text, count=1).split()).rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureError("damaged base64 text", str(error)) from None


def begins_as_picture(path: Path) -> bool:
    """Whether the first bytes of a file are those of a picture; False for what is no file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(handle, "rb") as stream:
            head = stream.read(12) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except OSError:
        return False
    riff = head.startswith(b"RIFF") and head.endswith(b"WEBP")
    isom = head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1")
    return head.startswith(_STARTS) or riff or isom


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
    real, flags = os.path.join(real_folder(folder), base), os.O_NOFOLLOW
    if base in ("", ".", "..") or os.path.islink(real):
        real, flags = os.path.realpath(path), 0
    if os.path.commonpath([root, real]) != root:
        raise PictureError("path leaves the folder", f"{real[:200]} is not in {root}")
    return real, flags


@lru_cache(maxsize=4096)  # class folders, in any order
def real_folder(path: str) -> str:
    """`os.path.realpath` of a folder that does not change meanwhile."""
    return os.path.realpath(path)
