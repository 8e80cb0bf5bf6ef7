"""What names in and of tars mean: keys, endings of pictures, which tars of a folder are of which split."""

from __future__ import annotations

import re
from pathlib import Path

from data_pipelines.tars.folders import by_split, files_that_count, files_under, split_of
from data_pipelines.tars.index import TarSample
from seqtok_core.foundation.errors import DataError

PACKED = (".tar.gz", ".tgz")
_UNPACK = "compressed with gzip, and tars are read at their offsets; `gunzip` them, or move them away"
SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
# Endings that pictures have; what such a file is, its content says.
IMAGE_EXTENSIONS = (
    *("png", "jpg", "jpeg", "webp", "gif", "bmp", "avif", "tif", "tiff", "jfif", "jpe", "jp2", "ppm", "pgm", "pnm"),
    *("heic", "heif", "jxl"),
)


def find_tars(path: Path, rest: str = "train") -> dict[str, list[Path]]:
    """Split -> its tars; see `by_split`. Where none lie in the folder itself, those of the folders in it."""
    path = Path(path)
    if path.is_file():
        return {split_of(path.name, rest): [path]}
    names = files_that_count(path, [name for name in files_under(path) if name.endswith((".tar", *PACKED))])
    packed = [name for name in names if name.endswith(PACKED)]
    if packed:
        shown = ", ".join(packed[:3]) + (f" and {len(packed) - 3} more" if len(packed) > 3 else "")
        raise DataError(f"{path}: {shown}: {_UNPACK}")
    if not names:
        raise DataError(f"{path}: no *.tar there or in its folders")
    return by_split(path, names, rest)


def image_extension(sample: TarSample) -> str | None:
    return next((e for e in IMAGE_EXTENSIONS if e in sample.members), None)
