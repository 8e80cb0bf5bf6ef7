"""A JSON record of a sample -> its captions and labels. Which fields hold them is the user's choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import DataError


class Fields(Config):
    """Names of record fields."""

    captions: str = "captions"  # a list from coarse to fine, or one string
    labels: tuple[str, ...] = ()  # whole numbers or words


def captions_of(record: Mapping[str, Any], fields: Fields) -> tuple[str, ...]:
    """Raises DataError when the field is there but holds no text; () when it is absent or empty."""
    value = record.get(fields.captions)
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"field {fields.captions!r} is not a caption or a list of captions")
    return tuple(texts)


def labels_of(record: Mapping[str, Any], fields: Fields) -> dict[str, int | str]:
    """Labels that the record has; a field that is absent or null is left out. Raises DataError otherwise."""
    labels: dict[str, int | str] = {}
    for name in fields.labels:
        value = record.get(name)
        if value is None:
            continue
        if not isinstance(value, int | str):
            raise DataError(f"label field {name!r} holds {type(value).__name__}, not a number or a word")
        labels[name] = int(value) if isinstance(value, int) else value
    return labels
