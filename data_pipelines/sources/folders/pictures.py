"""Folders of pictures: captions in sidecar files (sidecars.py) or classes as folders.

Stated rules: pictures are known by their endings, files of other endings by their first bytes; they come folder by
folder, each in order of names. Hidden files are left aside, linked folders too, and these are counted. Each line of
KEY.txt that is not empty is a level (with `pyramid=sentences` all of it is one text). Of class folders the first folder
is the label; its caption is the label with `_` read as space. Folders called train, val, test (or valid, validation,
dev, training ...) are splits. Pictures that lie as files are read only inside the folder that the user named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_pipelines.sources.base import Bad
from data_pipelines.sources.folders.endings import PICTURE_ENDINGS
from data_pipelines.sources.folders.files import real_folder
from data_pipelines.sources.folders.listing import Listing
from data_pipelines.sources.folders.sidecars import SidecarForm, read_sidecars
from data_pipelines.sources.rows import Record
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.packed import Packed, pack

WORDS = "words"  # the label as text
_LOOKED_AT = 100


@dataclass(frozen=True, eq=False)
class PictureRows:
    """Pictures under `root`, as records with `file_name` and what lies beside them or the names of folders say."""

    root: Path
    files: Packed  # path under `root`
    kind: Literal["sidecar", "classes"]
    forms: tuple[SidecarForm, ...]  # of what lies beside them
    digest: str  # of names and sizes of all files
    aside: Mapping[str, int]  # what was left aside: sidecars without a picture, linked folders
    block: ClassVar[int] = 1

    def __len__(self) -> int:
        return len(self.files)

    def columns(self) -> tuple[str, ...]:
        names: dict[str, None] = {"file_name": None}
        for record in self.read(0, min(len(self), _LOOKED_AT), ()):
            names.update(dict.fromkeys(() if isinstance(record, Bad) else record))
        return tuple(names)

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        root = real_folder(str(self.root))
        for index in range(start, stop):
            name = os.fsdecode(self.files[index])
            record: dict[str, Any] = {}
            if self.kind == "classes":
                label = name.partition("/")[0]
                record = {"label": label, WORDS: label.replace("_", " ")}
            elif tuple(columns) != ("file_name",):  # names alone need no sidecar
                found = read_sidecars(root, name, self.forms)
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
    listing = Listing(root)
    files = pack(listing.pictures())
    if not len(files):
        raise DataError(f"{root}: no pictures ({', '.join(PICTURE_ENDINGS)}) in it or its folders")
    if kind == "auto":
        kind = "sidecar" if listing.beside else "classes"
        if kind == "classes":
            listing.refuse_texts_apart()
            listing.refuse_doubtful_classes()
    if kind == "classes" and listing.at_top:
        raise DataError(
            f"{root}: not a source: its pictures have no captions (no KEY.txt or KEY.json beside them, no class "
            "folders); add them, or name a table of captions with `images` for this folder"
        )
    if kind == "sidecar" and not listing.beside:
        listing.refuse_texts_apart()
        raise DataError(f"{root}: no picture has a KEY.txt or KEY.json beside it")
    aside = {what: count for what, count in listing.aside.items() if count}
    return PictureRows(root, files, kind, tuple(sorted(listing.forms)), listing.digest.hexdigest(), aside)
