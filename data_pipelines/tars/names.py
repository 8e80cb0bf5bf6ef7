"""What names in and of tars mean: keys, endings of pictures, the split in a file's name."""

from __future__ import annotations

import re
from pathlib import Path

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
SPLITS = ("train", "val", "test")
_SPLIT_ALIASES = {"valid": "val", "validation": "val", "dev": "val", "eval": "val", "training": "train"}


def find_tars(path: Path, rest: str = "train") -> dict[str, list[Path]]:
    """Split -> its tars in order of their names. The split is a word of the name, else `rest`."""
    path = Path(path)
    packed = [] if path.is_file() else sorted(p.name for p in path.iterdir() if p.name.endswith(PACKED))
    if packed:
        shown = ", ".join(packed[:3]) + (f" and {len(packed) - 3} more" if len(packed) > 3 else "")
        raise DataError(f"{path}: {shown}: {_UNPACK}")
    tars = [path] if path.is_file() else sorted(p for p in path.glob("*.tar") if p.is_file())
    if not tars:
        raise DataError(f"{path}: no *.tar there")
    splits: dict[str, list[Path]] = {}
    for tar in tars:
        splits.setdefault(split_of(tar.name, rest), []).append(tar)
    return splits


def split_of(name: str, rest: str = "train") -> str:
    """The last word of a file's name that is one of a split; `rest` where there is none."""
    for word in reversed(re.split(r"[^A-Za-z]+", name.rpartition(".")[0].lower())):
        word = _SPLIT_ALIASES.get(word, word)
        if word in SPLITS:
            return word
    return rest


def split_word(word: str) -> str:
    """The split that a word by itself stands for; the word in small letters where none is known."""
    word = word.strip().lower()
    return {**_SPLIT_ALIASES, "testing": "test", "restval": "train"}.get(word, word)


def image_extension(sample: TarSample) -> str | None:
    return next((e for e in IMAGE_EXTENSIONS if e in sample.members), None)
