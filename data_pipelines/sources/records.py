"""A record of a sample -> its picture, captions, labels and name. Which fields hold them is the user's choice.

A field is named by itself (`title`), by a path into it (`json.caption`, `images[0]`; values.py) or as a text with
fields in braces (`a photo of a {label}`, `images/{id}.jpg`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from data_pipelines.captions.sentences import sentence_levels
from data_pipelines.sources.values import TURNS, base_of, is_blank, texts_of, value_at
from data_pipelines.tars.index import TarSample, read_span
from data_pipelines.tars.names import IMAGE_EXTENSIONS
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError, shown

CAPTIONS = "captions"
TEXT = "txt"  # text that lies beside a picture, as KEY.txt
BY_WORDS = "the captions of a picture by their number of words, shortest first"  # several that nobody has ordered
CAPTION_FIELDS = (CAPTIONS, "caption", "text", TEXT)  # the first that a record has, where none is asked for
IMAGE_FIELDS = ("file_name", "image", "image_path", "path", "filepath", "filename", "file", "jpg", "png", "webp")
_OTHER_CAPTIONS = (*TURNS, "sentences")  # of a table that has none of CAPTION_FIELDS
_OTHER_IMAGES = ("images",)  # of a table that has none of IMAGE_FIELDS: lists of one
_SHOWN = 20  # columns that a message names
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_FILE = re.compile(rf"[/0-9][^/]*\.({'|'.join(IMAGE_EXTENSIONS)})\b")  # a path in place of the name of a column
_BRACES = re.compile(r"\{([^{}]*)\}")


class Fields(Config):
    """Names of record fields."""

    captions: str | tuple[str, ...] = Field(
        CAPTIONS, description="Field of captions, coarse to fine, or 'a photo of a {label}'; repeatable."
    )
    labels: tuple[str, ...] = Field((), description="Field that is a label, a whole number or a word; repeatable.")
    image: str = Field("", description="Field of path or bytes, or 'images/{id}.jpg'.")  # "": first of IMAGE_FIELDS
    key: str = Field("", description="Field that names a sample, by default its path.")
    pyramid: Literal["given", "sentences"] = Field(
        "given", description="sentences: the last text becomes a level per sentence."
    )
    max_levels: int = Field(6, ge=1, description="Most levels of sentences.")

    @property
    def caption_fields(self) -> tuple[str, ...]:
        names = (self.captions,) if isinstance(self.captions, str) else self.captions
        return tuple(name for name in names if name)

    @property
    def default_captions(self) -> bool:
        return self.caption_fields == (CAPTIONS,)


def record_captions(record: Mapping[str, Any], fields: Fields) -> tuple[str, ...]:
    """Raises DataError when a field is there but holds no text; () when all are absent or empty."""
    names = fields.caption_fields
    if fields.default_captions:
        there = [name for name in CAPTION_FIELDS if record.get(name) is not None]
        names = next(((name,) for name in there if not is_blank(record[name])), tuple(there[:1]))
    texts = [text for name in names for text in _texts(record, name, fields)]
    if fields.pyramid == "sentences" and texts:
        texts[-1:] = sentence_levels(texts[-1], fields.max_levels)
    return tuple(texts)


def labels_of(record: Mapping[str, Any], fields: Fields) -> dict[str, int | str]:
    """Labels that the record has; a field that is absent, null or not a number (NaN, as pandas writes an empty cell) is
    left out, and 3.0 is 3. Raises DataError otherwise."""
    labels: dict[str, int | str] = {}
    for name in fields.labels:
        value = value_at(record, name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or value != value:
            continue
        if not isinstance(value, int | str):
            raise DataError(f"label field {shown(name)!r} holds {type(value).__name__}, not a number or a word")
        labels[name] = int(value) if isinstance(value, int) else value
    return labels


def value_of(record: Mapping[str, Any], field: str) -> Any:
    """What a field, or a text with fields in braces, is for this record; None where a field is absent."""
    if "{" not in field:
        return value_at(record, field)
    values = {name: value_at(record, name) for name in _BRACES.findall(field)}
    if any(value is None for value in values.values()):
        return None
    return _BRACES.sub(lambda match: str(values[match.group(1)]), field)


def columns_in(field: str) -> tuple[str, ...]:
    return tuple(_BRACES.findall(field)) if "{" in field else (field,)


def columns_of(fields: Fields) -> tuple[str, ...]:
    """Every column that a record is asked for."""
    asked = [*fields.caption_fields, *fields.labels, fields.image, fields.key]
    asked += CAPTION_FIELDS if fields.default_captions else ()
    return tuple(dict.fromkeys(name for field in asked if field for name in columns_in(field)))


def choose_fields(fields: Fields, columns: Sequence[str], place: str, *, table: bool = False) -> Fields:
    """`fields` with the columns of picture and name filled in. Raises ConfigError naming the nearest columns.

    `table`: all columns are known, and one called `key` gives the samples their names.
    """
    check_fields(fields, columns, place)
    if table and fields.default_captions and not set(CAPTION_FIELDS) & set(columns):
        other = next((name for name in _OTHER_CAPTIONS if name in columns), "")
        if not other:
            known = ", ".join(CAPTION_FIELDS)
            raise ConfigError(
                f"{place}: no field with captions is known ({known}); name it with `fields.captions` ('' for none); "
                f"{_near('', columns)}"
            )
        fields = fields.model_copy(update={"captions": (other,)})
    known_images = (*IMAGE_FIELDS, *_OTHER_IMAGES) if table else IMAGE_FIELDS
    image = fields.image or next((name for name in known_images if name in columns), "")
    if not image:
        hint = "it has web addresses only: download with img2dataset first" if "url" in columns else _near("", columns)
        raise ConfigError(f"{place}: no field with pictures is known; name one with `fields.image`; {hint}")
    key = fields.key or ("key" if table and "key" in columns else "")
    return fields.model_copy(update={"image": image, "key": key})


def check_fields(fields: Fields, columns: Sequence[str], place: str) -> None:
    """Raises ConfigError for a field that was asked for and is none of `columns`."""
    check_columns([(setting, name) for setting, field in _asked(fields) for name in columns_in(field)], columns, place)


def check_columns(asked: Sequence[tuple[str, str]], columns: Sequence[str], place: str) -> None:
    """`asked` are (what names it, name). Raises ConfigError naming the nearest columns."""
    for setting, name in asked:
        if base_of(name, columns) is None:
            raise ConfigError(f"{place}: no field {shown(name)!r} ({setting}); {_near(name, columns)}")


def levels_made(fields: Fields, columns: Sequence[str] = CAPTION_FIELDS) -> dict[str, Any]:
    """How the captions of a record became levels; kept in dataset.json."""
    known = " else ".join(name for name in CAPTION_FIELDS if name in columns)
    names = known if fields.default_captions else list(fields.caption_fields)
    made: dict[str, Any] = {"fields": names, "order": "as given, coarse to fine"}
    if set(fields.caption_fields) & set(TURNS):
        made["order"] = "the answers of a conversation, in their order"
    if fields.pyramid == "sentences":
        made["order"] = f"the last text by sentences: first, first two, ... all; at most {fields.max_levels}"
    return made


def level_names(fields: Fields) -> tuple[str, ...]:
    """Columns in the order of their levels; empty where levels are not columns."""
    plain = fields.pyramid == "given" and len(fields.caption_fields) > 1
    return fields.caption_fields if plain else ()


def _texts(record: Mapping[str, Any], field: str, fields: Fields) -> list[str]:
    value = value_of(record, field)
    if field == TEXT and isinstance(value, str):
        return [value] if fields.pyramid != "given" else [line for line in value.splitlines() if line.strip()]
    return texts_of(value, field)


def _asked(fields: Fields) -> list[tuple[str, str]]:
    asked = [] if fields.default_captions else [("`fields.captions`", name) for name in fields.caption_fields]
    asked += [("`fields.labels`", name) for name in fields.labels]
    asked += [("`fields.image`", fields.image)] if fields.image else []
    return asked + ([("`fields.key`", fields.key)] if fields.key else [])


def _near(name: str, columns: Sequence[str]) -> str:
    named = [column for column in columns if column.strip()]
    near = difflib.get_close_matches(name, named, n=3, cutoff=0.5) if name else []
    if near:
        return f"did you mean {' or '.join(map(shown, near))}?"
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    row = "; these look like a row: put names of columns in a line before it" if any(map(_FILE.search, named)) else ""
    return f"there are {', '.join(map(shown, named[:_SHOWN])) or 'no named fields'}{more}{row}"


def read_record(handle: int, sample: TarSample, fields: Fields) -> dict[str, Any]:
    """KEY.json, with KEY.txt as its field `txt` where the captions may come from there, KEY.cls as `cls`: a number
    where it is one.

    Where there is no KEY.json, KEY.txt stands for the field that captions are asked of. Raises DataError.
    """
    return parse_record(sample.members, lambda extension: read_span(handle, sample.members[extension]), fields)


def parse_record(members: Collection[str], content: Callable[[str], bytes], fields: Fields) -> dict[str, Any]:
    """As `read_record`; `content` gives the bytes of one of the `members`."""
    record: Any = {}
    if "json" in members:
        try:
            record = json.loads(content("json"))
        except (ValueError, RecursionError):
            raise DataError("KEY.json is not JSON") from None
        if not isinstance(record, dict):
            raise DataError("KEY.json is not an object")
    for extension in (TEXT, "cls"):
        if extension in members and _is_wanted(extension, record, members, fields):
            try:
                text = content(extension).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise DataError(f"KEY.{extension} is not UTF-8") from None
            number = extension == "cls" and _NUMBER.fullmatch(text.strip())
            record[extension] = int(text) if number else text
    if TEXT in record and "json" not in members and not fields.default_captions:
        record.setdefault(fields.caption_fields[0] if fields.caption_fields else TEXT, record[TEXT])
    return record


def _is_wanted(extension: str, record: dict[str, Any], members: Collection[str], fields: Fields) -> bool:
    if extension != TEXT:
        return extension in fields.labels
    if fields.default_captions:
        return all(is_blank(record.get(name)) for name in CAPTION_FIELDS)
    return "json" not in members or TEXT in columns_of(fields)
