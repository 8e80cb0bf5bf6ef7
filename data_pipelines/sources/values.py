"""What a record holds: a field by its path, and the texts that a field of captions stands for.

A path goes into objects and lists: `json.caption`, `images[0]`, `texts[-1].short`; of a list, a name takes that of
every item (`sentences.raw`), as `[]` does (`sentences[].raw`). A field whose whole name exists comes before any path,
so that a column called `caption.en` stays what it is. Text that is a JSON object or list is opened on the way.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from seqtok_core.foundation.errors import ConfigError, DataError, shown

_ITEM = re.compile(r"\[(-?[0-9]*)\]\.?")
_UNCUT = re.compile(r"""['"]\s+['"]""")  # between two texts of a list as numpy prints it
_ANSWERS = ("gpt", "assistant", "model")  # who speaks about the picture in a conversation; the other one asks
_SHOWN = 20  # columns that a message names
_LONGEST_NAME = 3  # words
_TURN = (("from", "value"), ("role", "content"))
_TEXTS = ("raw", "caption", "text")  # where an object that is one caption of several has its text
TURNS = ("conversations", "messages")  # fields that hold the turns of a conversation


class FieldError(DataError):
    """A field that holds something else than it should. `detail` says what; the message counts alike cases together."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def value_at(record: Any, path: str) -> Any:
    """None where nothing is there."""
    if not path:
        return record
    if isinstance(record, str):
        record = _opened(record)
    item = _ITEM.match(path)
    if item and isinstance(record, list):
        rest, number = path[item.end() :], item.group(1)
        if not number:
            return _of_each(record, rest)
        return value_at(record[int(number)], rest) if -len(record) <= int(number) < len(record) else None
    if isinstance(record, list):
        return _of_each(record, path)
    head = base_of(path, record) if isinstance(record, Mapping) else None
    if head is None:
        return None
    return record[head] if head == path else value_at(record[head], path[len(head) :].removeprefix("."))


def base_of(path: str, names: Collection[str]) -> str | None:
    """Which of the names a path begins with: itself where it is one, else the longest."""
    if path in names:
        return path
    cuts = [place for place, letter in enumerate(path) if letter in ".["]
    return next((path[:cut] for cut in reversed(cuts) if path[:cut] in names), None)


def check_columns(asked: Sequence[tuple[str, str]], columns: Sequence[str], place: str) -> None:
    """`asked` are (what names it, name). Raises ConfigError naming the nearest columns."""
    for setting, name in asked:
        if base_of(name, columns) is None:
            raise ConfigError(f"{place}: no field {shown(name)!r} ({setting}); {near_columns(name, columns)}")


def near_columns(name: str, columns: Sequence[str]) -> str:
    """For messages: the columns that are called nearly so, else the first ones."""
    named = [column for column in columns if column.strip()]
    near = difflib.get_close_matches(name, named, n=3, cutoff=0.5) if name else []
    if near:
        return f"did you mean {' or '.join(map(shown, near))}?"
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    row = "; these look like a row: name the columns of a CSV with `columns`" if any(map(_is_text, named)) else ""
    return f"there are {', '.join(map(shown, named[:_SHOWN])) or 'no named fields'}{more}{row}"


def _is_text(name: str) -> bool:
    """Whether what should be the name of a column is as long as a caption."""
    return len(name.split()) > _LONGEST_NAME


def texts_of(value: Any, field: str) -> list[str]:
    """The captions that a value is. Raises FieldError where it is none.

    A text; a list of texts, also as a cell of a table shows it (`["a", "b"]`); the answers of a conversation; the
    texts of a list of captions. Nothing for None and NaN, as pandas writes an empty cell.
    """
    if value is None or value != value:
        return []
    if isinstance(value, str):
        return _listed(value, field)
    if isinstance(value, Mapping):
        raise _no_caption(field, f"it is an object ({_keys(value)}); name one, as {field}.{_first(value)}")
    if not isinstance(value, list):
        raise _no_caption(field, f"it is {shape_of(value)}")
    if all(isinstance(text, str) for text in value):
        return list(value)
    if all(isinstance(item, Mapping) for item in value):
        return _texts_of_objects(value, field)
    raise _no_caption(field, f"it is {shape_of(value)}")


def is_blank(value: Any) -> bool:
    """Whether a value says nothing: None, NaN, white space, an empty list."""
    return value is None or value != value or value == [] or (isinstance(value, str) and not value.strip())


def shape_of(value: Any) -> str:
    """A few words on the structure of a value, for messages."""
    if isinstance(value, Mapping):
        return f"an object ({_keys(value)})"
    if isinstance(value, list):
        return f"a list of {len(value)}: {shape_of(value[0])} ..." if value else "an empty list"
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", bytes: "bytes"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _no_caption(field: str, detail: str) -> FieldError:
    return FieldError(f"field {shown(field)!r} is not a caption or a list of captions", detail)


def _of_each(items: list[Any], path: str) -> Any:
    found = [value_at(item, path) for item in items]
    return [value for value in found if value is not None] or None


def _opened(text: str) -> Any:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None
    return None


def _listed(text: str, field: str) -> list[str]:
    """A cell that shows a list of texts, as JSON or as Python prints it; any other text is a caption."""
    if not (text.startswith("[") and text.endswith("]")):
        return [text]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [text]
        if isinstance(found, list) and len(found) == 1 and _UNCUT.search(text):
            raise _no_caption(field, "it is a list without commas, as numpy prints it; write JSON") from None
    return found if isinstance(found, list) and found and all(isinstance(item, str) for item in found) else [text]


def _texts_of_objects(items: list[Mapping[str, Any]], field: str) -> list[str]:
    for speaker, said in _TURN:
        if all(speaker in item and said in item for item in items):
            return [_said(item[said]) for item in items if item[speaker] in _ANSWERS]
    for name in _TEXTS:
        if all(isinstance(item.get(name), str) for item in items):
            return [item[name] for item in items]
    first = items[0]
    raise _no_caption(field, f"it is a list of objects ({_keys(first)}); name one, as {field}.{_first(first)}")


def _said(content: Any) -> str:
    """The text of a turn: it may come in parts, among pictures."""
    if isinstance(content, list):
        content = " ".join(str(part["text"]) for part in content if isinstance(part, Mapping) and "text" in part)
    return str(content or "").replace("<image>", "").strip()


def _keys(value: Mapping[str, Any]) -> str:
    first = [shown(key) for key in list(value)[:8]]
    return ", ".join([*first, "..."] if len(value) > len(first) else first) or "empty"


def _first(value: Mapping[str, Any]) -> str:
    return shown(next((key for key, found in value.items() if isinstance(found, str)), next(iter(value), "NAME")))
