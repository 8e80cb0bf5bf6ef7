"""A .json file that holds all records at once, parsed whole and kept packed. Three shapes are read:

1. a list of objects, at the top or as the only list of objects of an object: `[{"image": ..., "caption": ...}, ...]`,
   LLaVA's `[{"image": ..., "conversations": [...]}, ...]`;
2. Karpathy's splits: `{"images": [{"filename", "filepath", "split", "sentences": [{"raw": ...}]}]}`; a picture's
   captions are put in order of their number of words, shortest first, as those of COCO;
3. an object of pictures: `{"images/0.jpg": "a caption", "images/1.jpg": ["several", "captions"]}`, or of their records
   by name: `{"a": {"image": ..., "caption": ...}}`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_pipelines.sources.records import BY_WORDS, CAPTION_FIELDS, CAPTIONS, IMAGE_FIELDS
from data_pipelines.sources.rows import PackedRows
from data_pipelines.sources.values import TURNS, shape_of, value_at
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import read_json, sha256_file
from seqtok_core.foundation.packed import pack

JsonShape = Literal["coco", "json", "jsonl", ""]
_HEAD = 1 << 16  # characters of a file that show its shape
_LOOKED_AT = 1000  # records whose fields are taken for those of all
_KARPATHY = "of Karpathy's form"
_PICTURE = re.compile(r"[^\n]*\.[A-Za-z][A-Za-z0-9]{1,4}")
_WAY_OUT = (
    'read are lists of objects ({"image": ..., "caption": ...}; with `conversations` too), COCO captions, splits by '
    'Karpathy and {"images/0.jpg": "caption"}; write this as JSON Lines, one object per line'
)


def json_shape(path: Path) -> JsonShape:
    """What the head of a .json file looks like; "" where it does not look like captions of pictures."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as stream:
            head = stream.read(_HEAD).lstrip()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if _are_lines(head):
        return "jsonl"
    known = re.search(rf'"({"|".join((*IMAGE_FIELDS, "images"))})"\s*:', head) is not None
    if re.match(r"\[\s*\{", head):
        return "json" if known else ""
    if re.search(r'"sentences"\s*:', head):
        return "json"
    if re.search(r'"images"\s*:\s*\[\s*\{', head) or re.search(r'"annotations".*"image_id"\s*:', head, re.DOTALL):
        return "coco"
    first = re.match(r'\{\s*"((?:[^"\\]|\\.)*)"\s*:', head)
    named = first is not None and _PICTURE.fullmatch(first.group(1)) is not None
    return "json" if named or (known and head.startswith("{")) else ""


def _are_lines(head: str) -> bool:
    """Whether a file called .json holds an object on each line."""
    line, _, rest = head.partition("\n")
    if not rest.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_json_records(path: Path) -> PackedRows:
    """Raises DataError, with what the file holds, where it has none of the shapes or no records."""
    content = read_json(path)
    aside: Counter[str] = Counter()
    packed = pack(json.dumps(record).encode() for record in _records(path, content, aside))
    del content
    if not len(packed):
        raise DataError(f"{path}: holds no records")
    names: dict[str, None] = {}
    for index in range(min(len(packed), _LOOKED_AT)):
        names.update(dict.fromkeys(json.loads(packed[index])))
    order = BY_WORDS if aside.pop(_KARPATHY, 0) else ""
    return PackedRows(path.name, packed, tuple(names), sha256_file(path), dict(aside), unit="record", order=order)


def _records(path: Path, content: Any, aside: Counter[str]) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, Mapping):
        if "images" in content and "annotations" in content:
            raise DataError(f"{path}: looks like COCO captions; say `kind=coco`")
        lists = [value for value in content.values() if _is_records(value)]
        if _are_captions_by_file(content):
            yield from ({"file_name": name, CAPTIONS: found} for name, found in content.items())
            return
        if _are_records_by_name(content):
            yield from ({**_named(name), **record} for name, record in content.items())
            return
        if len(lists) != 1:
            raise DataError(f"{path}: its structure is not known: {shape_of(content)}; {_parts(content)}; {_WAY_OUT}")
        content = lists[0]
    if content == []:
        return
    if not _is_records(content):
        raise DataError(f"{path}: its structure is not known: {shape_of(content)}; {_WAY_OUT}")
    for record in content:
        if isinstance(record.get("sentences"), list) and "filename" in record:
            aside[_KARPATHY] += 1
            yield _of_karpathy(record)
        elif set(TURNS) & record.keys() and not {*IMAGE_FIELDS, "images"} & record.keys():
            aside["conversations_without_picture"] += 1
        else:
            yield record


def _are_captions_by_file(content: Mapping[str, Any]) -> bool:
    found = content.values()
    return bool(content) and all(map(_PICTURE.fullmatch, content)) and all(isinstance(v, str | list) for v in found)


def _are_records_by_name(content: Mapping[str, Any]) -> bool:
    texts = {*CAPTION_FIELDS, *TURNS}
    return bool(content) and all(isinstance(record, Mapping) and texts & record.keys() for record in content.values())


def _named(name: str) -> dict[str, str]:
    return {"key": name, "file_name": name} if _PICTURE.fullmatch(name) else {"key": name}


def _of_karpathy(record: Mapping[str, Any]) -> dict[str, Any]:
    folder, name = record.get("filepath"), str(record["filename"])
    texts = [text for text in value_at(record, "sentences.raw") or [] if isinstance(text, str)]
    kept = {key: value for key, value in record.items() if key not in ("sentences", "filepath", "filename")}
    file = f"{folder}/{name}" if isinstance(folder, str) and folder else name
    return {"file_name": file, CAPTIONS: sorted(texts, key=lambda text: len(text.split())), **kept}


def _is_records(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _parts(content: Mapping[str, Any]) -> str:
    return "; ".join(f"{shown(key)} is {shape_of(value)}" for key, value in list(content.items())[:4])[:400]
