"""One walk over a folder of pictures: their names, the texts beside them, and what is left aside."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.sources.folders.endings import NOT_READ, PictureFinder
from data_pipelines.sources.folders.sidecars import SidecarForm, forms_of, is_sidecar, owners
from data_pipelines.tars.folders import OUR_MARK, is_aside
from seqtok_core.foundation.errors import DataError

_SAMPLE = 100  # names of a folder that are compared with those of another


class Listing:
    """Memory for the names of one folder at a time, and some names of each."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.digest = hashlib.sha256()
        self.at_top = self.deep = 0  # pictures in no folder, in a folder of a folder
        self.beside = 0  # pictures with a sidecar
        self.forms: set[SidecarForm] = set()  # of sidecars
        self.aside: Counter[str] = Counter()  # what is left aside: what -> how many
        self.records = ""  # a .json that belongs to no picture
        self.classes: set[str] = set()  # first folders that hold pictures
        self._stems: dict[str, list[str]] = {}  # folder -> names of some of its pictures, without their endings
        self._lonely: dict[str, list[str]] = {}  # the same of texts without a picture
        self._finder = PictureFinder(root)

    def pictures(self) -> Iterator[bytes]:
        """Paths under the root. The other facts are complete once all have been taken."""
        yield from self._folder("")

    def refuse_doubtful_classes(self) -> None:
        """Folders that were not asked to be classes must look like it: two at least, nothing deeper, no records."""
        way_out = "name what holds the captions, or say `kind=classes` if its first folders are the classes"
        why = f"{self.records} belongs to no picture" if self.records else ""
        why = why or ("some pictures lie deeper than class folders do" if self.deep else "")
        why = why or ("all of them lie in one folder" if len(self.classes) == 1 else "")
        if why:
            raise DataError(f"{self._root}: not a source: no captions beside its pictures, and {why}; {way_out}")

    def refuse_texts_apart(self) -> None:
        """Texts of the pictures' names in another folder: captions, or the boxes of a detector; only the user knows."""
        for texts, names in self._lonely.items():
            for pictures, stems in self._stems.items():
                if texts != pictures and 2 * len(set(names) & set(stems)) >= len(names):
                    raise DataError(
                        f"{self._root}: the pictures of {pictures or '.'} have texts of their names in {texts or '.'}, "
                        "and captions are read beside a picture only; move these texts there if they are captions, or "
                        "say `kind=classes` if its first folders are the classes"
                    )

    def _folder(self, prefix: str) -> Iterator[bytes]:
        files, folders = self._entries(prefix)
        if prefix and OUR_MARK in files:
            return
        texts: dict[str, list[str]] = {}  # name without its ending -> endings
        for stem, ending in (os.path.splitext(name) for name in sorted(files) if is_sidecar(name)):
            texts.setdefault(stem, []).append(ending)
        owned: set[str] = set()
        stems: list[str] = []
        for name, size in sorted(files.items()):
            picture = self._finder.is_picture(prefix + name)
            ending = os.path.splitext(name)[1].lower()
            self.aside[f"{ending[1:]}_files_that_are_not_read"] += ending in NOT_READ
            if picture or is_sidecar(name):
                self.digest.update(f"{prefix}{name}\0{size}\0".encode("utf-8", "surrogateescape"))
            if picture:
                forms = list(forms_of(name, texts))
                self.forms.update(forms)
                self.beside += bool(forms)
                owned.update(owners(name))
                stems.append(owners(name)[0])
                self.at_top += not prefix
                self.deep += prefix.count("/") > 1
                yield os.fsencode(prefix + name)
        self._note(prefix, stems, {stem: endings for stem, endings in texts.items() if stem not in owned})
        for folder in sorted(folders):
            yield from self._folder(f"{prefix}{folder}/")

    def _note(self, prefix: str, stems: list[str], lonely: dict[str, list[str]]) -> None:
        """What a folder holds, when its pictures are known."""
        self.aside["text_without_picture"] += len(lonely)
        if stems:
            self._stems[prefix] = stems[:_SAMPLE]
            self.classes.update({prefix.partition("/")[0]} if prefix else ())
        if lonely:
            self._lonely[prefix] = list(lonely)[:_SAMPLE]
        alone = next((stem for stem, endings in lonely.items() if ".json" in endings), None)
        self.records = self.records or (f"{prefix}{alone}.json" if alone is not None else "")

    def _entries(self, prefix: str) -> tuple[dict[str, int], list[str]]:
        files: dict[str, int] = {}
        folders = []
        try:
            with os.scandir(self._root / prefix) as entries:
                for entry in entries:
                    if is_aside(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_dir():
                        self.aside["linked_folders"] += 1
                    else:
                        files[entry.name] = entry.stat(follow_symlinks=False).st_size
        except OSError as error:
            raise DataError(f"{self._root / prefix}: cannot be read ({error.strerror})") from None
        return files, folders
