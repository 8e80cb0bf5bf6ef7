"""Sources of pictures with records beside them: captions.jsonl, COCO, sidecar files, class folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_pipelines.sources.folders.pictures import WORDS, list_pictures
from data_pipelines.sources.record_source import RecordSource, record_source
from data_pipelines.sources.records import BY_WORDS, CAPTIONS, Fields
from data_pipelines.sources.rows import PackedRows, scan_jsonl
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import read_json, sha256_file
from seqtok_core.foundation.packed import pack

CAPTIONS_FILE = "captions.jsonl"


def folder_source(folder: Path, fields: Fields, images: Path | None = None, also: Sequence[str] = ()) -> RecordSource:
    """`folder`/captions.jsonl: one {"file_name": ..., "captions": [coarse ... fine], ...} per line."""
    rows = scan_jsonl(Path(folder) / CAPTIONS_FILE)
    fields = fields if fields.image else fields.model_copy(update={"image": "file_name"})
    return record_source("folder", rows, fields, images or Path(folder), place=rows.spans.path, also=tuple(also))


def picture_source(
    folder: Path, kind: Literal["auto", "sidecar", "classes"], fields: Fields, also: Sequence[str] = ()
) -> RecordSource:
    """A folder of pictures with sidecar files or in class folders."""
    rows = list_pictures(Path(folder), kind)
    chosen: dict[str, Any] = {"image": "file_name"}
    order = ""
    if rows.kind == "classes":
        order = "the name of the class, _ read as space" if fields.default_captions else ""
        chosen["captions"] = WORDS if fields.default_captions else fields.captions
        chosen["labels"] = fields.labels or ("label",)
    fields = fields.model_copy(update=chosen)
    return record_source(rows.kind, rows, fields, Path(folder), place=Path(folder), order=order, also=tuple(also))


def coco_source(
    path: Path, images: Path | None = None, fields: Fields | None = None, also: Sequence[str] = ()
) -> RecordSource:
    """COCO captions JSON. A picture's captions are put in order of their number of words, shortest first.

    `images` is the folder of the pictures; by default that of the JSON, or an `images/` in or beside it.
    """
    path = Path(path)
    aside: Counter[str] = Counter()
    packed = pack(_coco_records(path, aside))
    rows = PackedRows(
        path.name, packed, ("file_name", CAPTIONS), sha256_file(path), {k: n for k, n in aside.items() if n}
    )
    if not len(rows):
        raise DataError(f"{path}: names no images")
    first = json.loads(rows.packed[0])["file_name"]
    chosen = (fields or Fields()).model_copy(update={"image": "file_name"})
    root = images or _find_images(path, first)
    return record_source("coco", rows, chosen, root, place=path, order=BY_WORDS, also=tuple(also))


def _coco_records(path: Path, aside: Counter[str]) -> Iterator[bytes]:
    """Each picture as packed JSON; all of the file is in memory only while this runs. `aside` counts annotations that
    are no caption of a picture of the file."""
    content = read_json(path)
    try:
        captions: dict[Any, list[str]] = {number: [] for number in _coco_files(path, content["images"])}
        for note in content["annotations"]:
            text = note["caption"]
            if note["image_id"] not in captions:
                aside["annotations_of_no_image"] += 1
            elif isinstance(text, str):
                captions[note["image_id"]].append(text.strip())
            else:
                aside["captions_that_are_no_text"] += 1
        if content["images"] and aside.get("annotations_of_no_image", 0) == len(content["annotations"]):
            raise DataError(f"{path}: no annotation belongs to an image of this file")
        for item in content["images"]:
            found = sorted(captions[item["id"]], key=lambda text: len(text.split()))
            yield json.dumps({"file_name": os.fspath(item["file_name"]), CAPTIONS: found}).encode()
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not in the form of COCO captions ({shown(repr(error))})") from None


def _coco_files(path: Path, images: Sequence[Mapping[str, Any]]) -> dict[Any, str]:
    """id -> file. Raises DataError for an id of two files: each would get the other's captions."""
    found: dict[Any, str] = {}
    for item in images:
        name = os.fspath(item["file_name"])
        if found.setdefault(item["id"], name) != name:
            raise DataError(
                f"{path}: id {shown(item['id'])} names two pictures, {shown(found[item['id']])} and {shown(name)}; "
                "where sets are merged, number the images of one anew, and its annotations with them"
            )
    return found


def _find_images(path: Path, first: str) -> Path:
    candidates = [path.parent, path.parent / "images", path.parent.parent / "images"]
    for folder in candidates:
        if (folder / first).is_file():
            return folder
    tried = ", ".join(str(folder) for folder in candidates)
    raise DataError(f"{path}: its first picture {shown(first)} is in none of {tried}; name the folder with `images`")
