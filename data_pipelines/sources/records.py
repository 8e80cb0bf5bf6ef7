"""A record of a sample -> its picture, captions, labels and name. Which fields hold them is the user's choice.

A field is named by itself (`title`), by a path into it (`json.caption`, `images[0]`; values.py) or as a text with
fields in braces (`a photo of a {label}`, `images/{id}.jpg`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from data_pipelines.captions.sentences import sentence_levels
from data_pipelines.sources.values import TURNS, check_columns, is_blank, near_columns, texts_of, value_at
from data_pipelines.tars.index import TarSample, read_span
from data_pipelines.tars.names import TEXTS, image_extension
from seqtok_core.foundation.config import LATER, Config
from seqtok_core.foundation.errors import ConfigError, DataError, shown

CAPTIONS = "captions"
TEXT = "txt"  # text that lies beside a picture, as KEY.txt
BY_WORDS = "the captions of a picture by their number of words, shortest first"  # several that nobody has ordered
CAPTION_FIELDS = (CAPTIONS, "caption", "text", TEXT)  # the first that a record has, where none is asked for
IMAGE_FIELDS = ("file_name", "image", "image_path", "path", "filepath", "filename", "file", "jpg", "png", "webp")
_OTHER_CAPTIONS = (*TURNS, "sentences")  # of a table that has none of CAPTION_FIELDS
_OTHER_IMAGES = ("images",)  # of a table that has none of IMAGE_FIELDS: lists of one
_NUMBER = re.compile(r"-?[0-9]{1,18}")
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
    image_member: Annotated[str, LATER] = Field("", description="Tars: member that is the picture, e.g. input.jpg.")
    caption_members: Annotated[tuple[str, ...], LATER] = Field(
        (), description="Tars: member with captions, e.g. caption or outputs.txt; repeatable, coarse to fine."
    )

    @field_validator("image_member", "caption_members")
    @classmethod
    def _as_in_tars(cls, value: Any) -> Any:
        """Names of members are in small letters, without the dot after the key."""
        plain = [name.lower().removeprefix(".") for name in ([value] if isinstance(value, str) else value)]
        return plain[0] if isinstance(value, str) else tuple(plain)

    @model_validator(mode="after")
    def _one_place_for_captions(self) -> Fields:
        if self.caption_members and not self.default_captions:
            raise ValueError("captions are either in a field or in members of their own: `captions`, `caption_members`")
        return self

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
                f"{near_columns('', columns)}"
            )
        fields = fields.model_copy(update={"captions": (other,)})
    known_images = (*IMAGE_FIELDS, *_OTHER_IMAGES) if table else IMAGE_FIELDS
    image = fields.image or next((name for name in known_images if name in columns), "")
    if not image:
        web = "it has web addresses only: download with img2dataset first"
        hint = web if "url" in columns else near_columns("", columns)
        raise ConfigError(f"{place}: no field with pictures is known; name one with `fields.image`; {hint}")
    key = fields.key or ("key" if table and "key" in columns else "")
    return fields.model_copy(update={"image": image, "key": key})


def check_fields(fields: Fields, columns: Sequence[str], place: str) -> None:
    """Raises ConfigError for a field that was asked for and is none of `columns`."""
    check_columns([(setting, name) for setting, field in _asked(fields) for name in columns_in(field)], columns, place)


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


def read_record(handle: int, sample: TarSample, fields: Fields) -> dict[str, Any]:
    """KEY.json, with KEY.txt as its field `txt` where the captions may come from there, KEY.cls as `cls`: a number
    where it is one.

    Where there is no KEY.json, KEY.txt stands for the field that captions are asked of. Raises DataError.
    """
    return parse_record(sample.members, lambda extension: read_span(handle, sample.members[extension]), fields)


def picture_member(members: Collection[str], fields: Fields) -> str | None:
    """Which of a sample's members is its picture; of `image_member` without an ending, the first that there is."""
    if not fields.image_member:
        return image_extension(members)
    if fields.image_member in members:
        return fields.image_member
    extension = image_extension([name.removeprefix(f"{fields.image_member}.") for name in members])
    named = f"{fields.image_member}.{extension}"
    return named if named in members else None


def text_members(fields: Fields) -> tuple[str, ...]:
    """Members of a sample that are read beside its picture."""
    return (*TEXTS, *fields.caption_members)


def parse_record(members: Collection[str], content: Callable[[str], bytes], fields: Fields) -> dict[str, Any]:
    """As `read_record`; `content` gives the bytes of one of the `members`."""
    record: Any = {}
    if "json" in members and "json" not in fields.caption_members:
        record = _object(_json(content("json"), "json"), fields)
    for extension in (TEXT, "cls"):
        if extension in members and _is_wanted(extension, record, members, fields):
            text = _decoded(content(extension), extension)
            number = extension == "cls" and _NUMBER.fullmatch(text.strip())
            record[extension] = int(text) if number else text
    if TEXT in record and "json" not in members and not fields.default_captions:
        record.setdefault(_captions_field(fields), record[TEXT])
    if fields.caption_members:
        given = [name for name in fields.caption_members if name in members]
        record[CAPTIONS] = [text for name in given for text in _captions_of(name, content(name), fields)]
    return record


def _captions_of(member: str, data: bytes, fields: Fields) -> list[str]:
    """Of a .json its captions, else lines as of KEY.txt."""
    if member.rpartition(".")[2] == "json":
        return list(
            record_captions(_object(_json(data, member), fields), fields.model_copy(update={"pyramid": "given"}))
        )
    return _texts({TEXT: _decoded(data, member)}, TEXT, fields)


def _json(data: bytes, member: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise DataError(f"KEY.{member} is not JSON") from None


def _object(value: Any, fields: Fields) -> dict[str, Any]:
    """A text, or a list of texts, stands for the captions."""
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        return {_captions_field(fields): value}
    if not isinstance(value, dict):
        raise DataError("KEY.json is not an object")
    return value


def _captions_field(fields: Fields) -> str:
    return (CAPTIONS if fields.default_captions else fields.caption_fields[0]) if fields.caption_fields else TEXT


def _decoded(data: bytes, member: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"KEY.{member} is not UTF-8") from None


def _is_wanted(extension: str, record: dict[str, Any], members: Collection[str], fields: Fields) -> bool:
    if extension != TEXT:
        return extension in fields.labels
    if fields.caption_members:
        return False
    if fields.default_captions:
        return all(is_blank(record.get(name)) for name in CAPTION_FIELDS)
    return "json" not in members or TEXT in columns_of(fields)
