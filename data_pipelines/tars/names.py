"""What names in and of tars mean: keys, endings of pictures, which tars of a folder are of which split."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from data_pipelines.tars.folders import by_split, files_that_count, files_under
from data_pipelines.tars.index import Span, TarSample
from seqtok_core.foundation.errors import DataError

PACKED = (".tar.gz", ".tgz")
_UNPACK = "compressed with gzip, and tars are read at their offsets; `gunzip` them, or move them away"
SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
# Endings that pictures have; what such a file is, its content says.
IMAGE_EXTENSIONS = (
    *("png", "jpg", "jpeg", "webp", "gif", "bmp", "avif", "tif", "tiff", "jfif", "jpe", "jp2", "ppm", "pgm", "pnm"),
    *("heic", "heif", "jxl"),
)
TEXTS = ("txt", "json", "cls")  # members that say something of a picture


def find_tars(path: Path, rest: str = "train", *, without_packed: bool = False) -> dict[str, list[Path]]:
    """Split -> its tars; see `by_split`. Where none lie in the folder itself, those of the folders in it. Packed ones
    beside them are an error, or left out where whoever asks names them himself (`packed_tars`)."""
    path = Path(path)
    if path.is_file():
        return by_split(path.parent, [path.name], rest)
    if not without_packed and (said := packed_tars(path)):
        raise DataError(said)
    names = [name for name in _names(path) if not name.endswith(PACKED)]
    if not names:
        raise DataError(packed_tars(path) or f"{path}: no *.tar there or in its folders")
    return by_split(path, names, rest)


def packed_tars(path: Path) -> str:
    """What is wrong with a folder that holds tars which cannot be read; "" where there are none."""
    packed = [] if path.is_file() else [name for name in _names(path) if name.endswith(PACKED)]
    listed = ", ".join(packed[:3]) + (f" and {len(packed) - 3} more" if len(packed) > 3 else "")
    return f"{path}: {listed}: {_UNPACK}" if packed else ""


def _names(path: Path) -> list[str]:
    return files_that_count(path, [name for name in files_under(path) if name.endswith((".tar", *PACKED))])


def image_extension(members: Collection[str]) -> str | None:
    """The first of the endings of pictures that a sample's members have."""
    return next((extension for extension in IMAGE_EXTENSIONS if extension in members), None)


def by_whole_names(sample: TarSample, texts: Collection[str] = TEXTS) -> list[TarSample]:
    """Samples whose names hold dots fall on one key of webdataset, `v1.0.jpg` and `v1.0.txt` on `v1`; here they are
    told apart. `0.jpg 0.seg.png 0.txt` stays one sample.

    Members of one whole name are a sample of their own where they are a picture and a text; beside a picture of the
    key itself, only with all the texts that that one has. Pictures whose names go on in numbers (`a.0.jpg a.1.jpg`)
    are samples where the key itself has neither picture nor text. What belongs to none of these stays with the key.
    """
    if not any("." in extension for extension in sample.members):
        return [sample]
    endings: dict[str, set[str]] = {"": set()}  # what stands between key and ending -> endings
    for extension in sample.members:
        middle, _, ending = extension.rpartition(".")
        endings.setdefault(middle, set()).add(ending)
    plain, wanted = endings.pop(""), set(texts)
    own = []
    for middle, found in endings.items():
        beside = plain & wanted <= found if image_extension(plain) else True
        numbered = middle.replace(".", "").isdigit() and not image_extension(plain) and not plain & wanted
        if image_extension(found) and ((found & wanted and beside) or numbered):
            own.append(middle)
    members: dict[str, dict[str, Span]] = {middle: {} for middle in ("", *own)}
    for extension, span in sample.members.items():
        middle = extension.rpartition(".")[0]
        while middle and middle not in members:
            middle = middle.rpartition(".")[0]
        members[middle][extension.removeprefix(f"{middle}.") if middle else extension] = span
    return [
        TarSample(f"{sample.key}.{middle}" if middle else sample.key, found)
        for middle, found in members.items()
        if found or len(members) == 1
    ]
