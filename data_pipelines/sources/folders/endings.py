"""Which files are pictures: those of the known endings, and others whose first bytes say so."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from data_pipelines.sources.folders.files import begins_as_picture
from data_pipelines.sources.folders.sidecars import is_sidecar
from data_pipelines.tars.index import is_litter
from data_pipelines.tars.names import IMAGE_EXTENSIONS

PICTURE_ENDINGS = tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
# Pictures that are not read: what they are called says so, and they are counted.
NOT_READ = (
    *(".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr", ".hdr", ".tga", ".svg"),
    *(".eps", ".ico", ".dds", ".pcx", ".xcf", ".ai", ".jxr", ".wdp", ".pdf"),
)
_TRIED = 20  # files of an ending that are looked into before it is taken for no picture's


class PictureFinder:
    """Asked for the files of one folder and its folders, in order."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._strange: Counter[str] = Counter()  # ending -> files that were looked into and are no pictures

    def is_picture(self, name: str) -> bool:
        """`name` is a path under the root."""
        ending = os.path.splitext(name)[1].lower()
        if ending in PICTURE_ENDINGS:
            return True
        if ending in NOT_READ or is_sidecar(name) or is_litter(name) or self._strange[ending] >= _TRIED:
            return False
        found = begins_as_picture(self._root / name)
        self._strange[ending] += not found
        return found
