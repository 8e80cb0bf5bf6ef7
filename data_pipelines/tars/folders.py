"""Files of a folder and of the folders in it, tars and tables alike: which split each is of, and which belong together.

A split is a word of the file's name, else of the nearest folder's. Folders that are no splits and no numbered parts
(`00/`, `part-1/`) and hold files of like names look like configurations of one data set: these are never mixed.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from seqtok_core.foundation.errors import DataError

SPLITS = ("train", "val", "test")
_SPLIT_ALIASES = {"valid": "val", "validation": "val", "dev": "val", "eval": "val", "training": "train"}
OUR_MARK = "prepare.json"  # of a folder that seqtok wrote: it is no part of what it was made from
_PART = re.compile(r"(?:part|shard|chunk|batch|tar|data)?s?[-_. ]?(\d+)", re.IGNORECASE)
_OF_MANY = re.compile(r"-of-\d+")  # train-00000-of-00002.parquet
OWN_FOLDER = "metadata"  # a table of this name speaks of the pictures of its own folder (imagefolder)


def files_under(folder: Path, prefix: str = "") -> Iterator[str]:
    """Paths under `folder`, folder by folder, each in order of names. Left aside: what is hidden, `__MACOSX`, linked
    folders, and folders in it that seqtok wrote."""
    try:
        with os.scandir(folder / prefix) as scan:
            entries = sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in scan)
    except OSError as error:
        raise DataError(f"{folder / prefix}: cannot be read ({error.strerror})") from None
    names = [name for name, is_dir, _ in entries if not is_dir]
    if prefix and OUR_MARK in names:
        return
    yield from (prefix + name for name in names if not is_aside(name))
    for name, is_dir, linked in entries:
        if is_dir and not linked and not is_aside(name):
            yield from files_under(folder, f"{prefix}{name}/")


def files_that_count(root: Path, names: Sequence[str]) -> list[str]:
    """Those of `names`, paths of alike files under `root`, that lie in it; where there are none, all. Warns of what is
    left aside."""
    top = [name for name in names if "/" not in name]
    if top and len(top) < len(names):
        first = next(name for name in names if "/" in name)
        left = len(names) - len(top)
        warnings.warn(
            f"{root}: {left} in deeper folders are left aside, as {first}; {top[0]} and what lies beside it count",
            stacklevel=2,
        )
    return top or list(names)


def is_aside(name: str) -> bool:
    """Whether a file or folder is hidden, or what macOS leaves in an archive."""
    return name.startswith(".") or name == "__MACOSX"


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


def split_of_folder(name: str) -> str:
    """As `split_of`; "" where no word is one of a split."""
    return split_of(f"{name}.", "")


def by_split(root: Path, names: Sequence[str], rest: str) -> dict[str, list[Path]]:
    """Split -> files. `names` are paths under `root`; `rest` is the split of those whose path says none.

    Raises DataError for several configurations.
    """
    _refuse_configurations(root, names)
    splits: dict[str, list[Path]] = {}
    for name in names:
        splits.setdefault(split_of_path(name) or rest, []).append(root / name)
    return splits


def folder_under(root: Path, file: Path) -> str:
    """The folder of a file as a path under `root`; "" for that itself."""
    folder = os.path.relpath(file.parent, root)
    return "" if folder == "." else folder


def split_of_path(name: str) -> str:
    """The split that a path says; "" where it says none."""
    *folders, base = name.split("/")
    found = (split_of(base, ""), *map(split_of_folder, reversed(folders)))
    return next((split for split in found if split), "")


def _refuse_configurations(root: Path, names: Sequence[str]) -> None:
    parts = _numbered_parts(names)
    seen: dict[tuple[str, str], tuple[str, str]] = {}  # split, name without its folder's -> configuration, folder
    for name in names:
        *folders, base = name.split("/")
        own = [
            folder
            for depth, folder in enumerate(folders, start=1)
            if not split_of_folder(folder) and "/".join(folders[:depth]) not in parts
        ]
        if base.startswith(f"{OWN_FOLDER}."):
            continue
        alike = _OF_MANY.sub("", base)
        for folder in own:
            alike = alike.replace(folder, "")
        config, place = "/".join(own), "/".join(folders)
        other, other_place = seen.setdefault((split_of_path(name), alike), (config, place))
        if other != config:
            raise DataError(
                f"{root}: {other_place or '.'} and {place} hold files of like names ({base}), as configurations of "
                f"one data set do; they are not mixed: name one of them, as {root / place}"
            )


def _numbered_parts(names: Sequence[str]) -> set[str]:
    """Folders that are numbered on end (give or take a gap), which 512/ and 1024/ are not."""
    numbers: dict[str, dict[str, int]] = {}  # folder -> those in it with a number
    for folder in {str(parent) for name in names for parent in PurePosixPath(name).parents if str(parent) != "."}:
        above, _, last = folder.rpartition("/")
        if match := _PART.fullmatch(last):
            numbers.setdefault(above, {})[folder] = int(match[1])
    return {
        folder
        for found in numbers.values()
        for folder in found
        if max(found.values()) - min(found.values()) < 2 * len(found)
    }
