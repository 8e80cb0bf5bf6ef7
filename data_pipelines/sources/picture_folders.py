"""Folders of pictures: captions in sidecar files (KEY.txt, KEY.json) or classes as folders.

Stated rules: pictures are known by their endings; they come folder by folder, each in order of names. Hidden files are
left aside, linked folders too, and these are counted. A sidecar belongs to the picture of the same path but for the
ending: KEY.json is a record, each line of KEY.txt that is not empty is a level (with `pyramid=sentences` all of it is
one text). Of class folders the first folder is the label; its caption is the label with `_` read as space. Class
folders that lie in folders called train, val, test (or valid, validation, dev, training ...) are splits.
Pictures that lie as files are read only inside the folder that the user named.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from data_pipelines.sources.base import Bad
from data_pipelines.sources.records import TEXT
from data_pipelines.sources.rows import Record
from data_pipelines.tars.names import IMAGE_EXTENSIONS
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.packed import Packed, pack

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|pipe:|data:image/")
_LARGEST = 1 << 29  # bytes of one file: a picture beyond half a GiB is a mistake
NO_DOWNLOAD = (
    "seqtok does not download: `img2dataset --url_list FILE --output_format webdataset` does; then prepare its folder"
)
PICTURE_ENDINGS = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
WORDS = "words"  # the label as text
_SIDECARS = (".json", ".txt")
_LOOKED_AT = 100


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


@dataclass(frozen=True, eq=False)
class PictureRows:
    """Pictures under `root`, as records with `file_name` and what lies beside them or the names of folders say."""

    root: Path
    files: Packed  # path under `root`
    kind: Literal["sidecar", "classes"]
    digest: str  # of names and sizes of all files
    aside: Mapping[str, int]  # what was left aside: sidecars without a picture, linked folders

    def __len__(self) -> int:
        return len(self.files)

    def columns(self) -> tuple[str, ...]:
        names: dict[str, None] = {"file_name": None}
        for record in self.read(0, min(len(self), _LOOKED_AT), ()):
            names.update(dict.fromkeys(() if isinstance(record, Bad) else record))
        return tuple(names)

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        root = os.path.realpath(self.root)
        for index in range(start, stop):
            name = os.fsdecode(self.files[index])
            record: dict[str, Any] = {}
            if self.kind == "classes":
                label = name.partition("/")[0]
                record = {"label": label, WORDS: label.replace("_", " ")}
            elif tuple(columns) != ("file_name",):  # names alone need no sidecar
                found = _sidecar(root, name)
                if isinstance(found, Bad):
                    yield found
                    continue
                record = found
            yield {**record, "file_name": name}

    def place(self, index: int) -> str:
        return os.fsdecode(self.files[index])

    def identity(self) -> dict[str, Any]:
        aside = {"left_aside": dict(self.aside)} if self.aside else {}
        return {"records": len(self), "files": self.digest, **aside}


def list_pictures(root: Path, kind: Literal["auto", "sidecar", "classes"] = "auto") -> PictureRows:
    """Raises DataError when there is no picture, or neither a sidecar nor a class folder."""
    listing = _Listing(root)
    files = pack(listing.pictures())
    if not len(files):
        raise DataError(f"{root}: no pictures ({', '.join(PICTURE_ENDINGS)}) in it or its folders")
    if kind == "auto":
        kind = "sidecar" if listing.beside else "classes"
        if kind == "classes":
            listing.refuse_doubtful_classes()
    if kind == "classes" and listing.at_top:
        raise DataError(
            f"{root}: not a source: its pictures have no captions (no KEY.txt or KEY.json beside them, no class "
            "folders); add them, or name a table of captions with `images` for this folder"
        )
    if kind == "sidecar" and not listing.beside:
        raise DataError(f"{root}: no picture has a KEY.txt or KEY.json beside it")
    aside = {"text_without_picture": listing.lonely, "linked_folders": listing.linked}
    aside = {what: count for what, count in aside.items() if count}
    return PictureRows(root, files, kind, listing.digest.hexdigest(), aside)


class _Listing:
    """One walk over a folder; memory for the names of one folder at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.digest = hashlib.sha256()
        self.at_top = self.deep = 0  # pictures in no folder, in a folder of a folder
        self.beside = self.lonely = 0  # pictures with a sidecar, sidecars without a picture
        self.linked = 0  # folders that are symbolic links
        self.records = ""  # a .json that belongs to no picture
        self.classes: set[str] = set()  # first folders that hold pictures

    def pictures(self) -> Iterator[bytes]:
        yield from self._folder("")

    def refuse_doubtful_classes(self) -> None:
        """Folders that were not asked to be classes must look like it: two at least, nothing deeper, no records."""
        way_out = "name what holds the captions, or say `kind=classes` if its first folders are the classes"
        why = f"{self.records} belongs to no picture" if self.records else ""
        why = why or ("some pictures lie deeper than class folders do" if self.deep else "")
        why = why or ("all of them lie in one folder" if len(self.classes) == 1 else "")
        if why:
            raise DataError(f"{self._root}: not a source: no captions beside its pictures, and {why}; {way_out}")

    def _folder(self, prefix: str) -> Iterator[bytes]:
        files, folders = self._entries(prefix)
        texts = {stem for stem, ending in map(os.path.splitext, files) if ending in _SIDECARS}
        stems = set()
        for name, size in sorted(files.items()):
            stem, ending = os.path.splitext(name)
            picture = ending.lower() in PICTURE_ENDINGS
            if picture or ending in _SIDECARS:
                self.digest.update(f"{prefix}{name}\0{size}\0".encode("utf-8", "surrogateescape"))
            if picture:
                stems.add(stem)
                self.at_top += not prefix
                self.deep += prefix.count("/") > 1
                self.beside += stem in texts
                yield os.fsencode(prefix + name)
        self.lonely += len(texts - stems)
        self.classes.update({prefix.partition("/")[0]} if prefix and stems else ())
        alone = sorted(stem for stem in texts - stems if f"{stem}.json" in files)
        self.records = self.records or (f"{prefix}{alone[0]}.json" if alone else "")
        for folder in sorted(folders):
            yield from self._folder(f"{prefix}{folder}/")

    def _entries(self, prefix: str) -> tuple[dict[str, int], list[str]]:
        files: dict[str, int] = {}
        folders = []
        try:
            with os.scandir(self._root / prefix) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_dir():
                        self.linked += 1
                    else:
                        files[entry.name] = entry.stat(follow_symlinks=False).st_size
        except OSError as error:
            raise DataError(f"{self._root / prefix}: cannot be read ({error.strerror})") from None
        return files, folders


def _sidecar(root: str, name: str) -> dict[str, Any] | Bad:
    stem = os.path.splitext(name)[0]
    record: dict[str, Any] = {}
    try:
        text = _read_if_there(root, stem + ".json")
        if text is not None:
            record = json.loads(text)
            if not isinstance(record, dict):
                return Bad(name, "KEY.json is not an object")
        text = _read_if_there(root, stem + ".txt")
    except (ValueError, RecursionError) as error:
        what = "KEY.txt or KEY.json is not UTF-8" if isinstance(error, UnicodeDecodeError) else "KEY.json is not JSON"
        return Bad(name, what)
    except PictureError as error:
        return Bad(name, f"sidecar: {error.reason}", error.detail)
    return record if text is None else {**record, TEXT: text}


def _read_if_there(root: str, name: str) -> str | None:
    if not os.path.lexists(os.path.join(root, name)):
        return None
    return read_picture(root, name).decode("utf-8-sig")
