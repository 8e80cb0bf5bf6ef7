"""Texts that lie beside a picture, one or several files to each: a record, a text of levels, a caption.

    picture 0.jpg    KEY.json  a record    KEY.txt  levels, line by line    KEY.caption  one text (field `caption`)

KEY is the picture's name without its ending (`0.txt`) or with it (`0.jpg.txt`); the case of endings does not matter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from data_pipelines.sources.base import Bad
from data_pipelines.sources.folders.files import PictureError, read_picture
from data_pipelines.sources.records import TEXT

CAPTION = "caption"
_ENDINGS = (".json", ".txt", ".caption")


class SidecarForm(NamedTuple):
    """How sidecars of a folder are named; the first form of a kind that a picture has counts."""

    whole: bool  # the picture's ending stays
    ending: str  # as written


def is_sidecar(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _ENDINGS


def owners(picture: str) -> tuple[str, str]:
    """What a sidecar of this picture is called, but for its own ending."""
    return os.path.splitext(picture)[0], picture


def forms_of(picture: str, texts: Mapping[str, Collection[str]]) -> Iterator[SidecarForm]:
    """The forms of the sidecars of this picture. `texts`: what a sidecar is called but for its ending -> endings."""
    for whole, owner in enumerate(owners(picture)):
        for ending in texts.get(owner, ()):
            yield SidecarForm(bool(whole), ending)


def read_sidecars(root: str, picture: str, forms: Sequence[SidecarForm]) -> dict[str, Any] | Bad:
    """The record of a picture under the real path `root`; {} where nothing lies beside it."""
    found: dict[str, str] = {}  # ending -> content
    for whole, ending in forms:
        kind = ending.lower()
        try:
            if kind not in found and (text := _read_if_there(root, owners(picture)[whole] + ending)) is not None:
                found[kind] = text
        except UnicodeDecodeError:
            return Bad(picture, "KEY.txt or KEY.json is not UTF-8")
        except PictureError as error:
            return Bad(picture, f"sidecar: {error.reason}", error.detail)
    try:
        record = json.loads(found[".json"]) if ".json" in found else {}
    except (ValueError, RecursionError):
        return Bad(picture, "KEY.json is not JSON")
    if not isinstance(record, dict):
        return Bad(picture, "KEY.json is not an object")
    if ".caption" in found:
        record = {**record, CAPTION: found[".caption"]}
    return {**record, TEXT: found[".txt"]} if ".txt" in found else record


def _read_if_there(root: str, name: str) -> str | None:
    if not os.path.lexists(os.path.join(root, name)):
        return None
    return read_picture(root, name).decode("utf-8-sig")
