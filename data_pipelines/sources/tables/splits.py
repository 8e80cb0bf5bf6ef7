"""A column that says which split a record belongs to."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.sources.base import Bad
from data_pipelines.sources.derived.cut import Subset
from data_pipelines.sources.derived.joined import JoinedRecords
from data_pipelines.sources.record_source import RecordSource
from data_pipelines.sources.values import check_columns, is_blank, value_at
from data_pipelines.tars.folders import SPLITS, split_word
from seqtok_core.foundation.errors import DataError, shown

SPLIT_FIELD = "split"
_NAME = re.compile(r"[a-z]{1,32}")


def split_column(asked: str | None, columns: Sequence[str], place: str) -> str:
    """The column that says the splits: the one that is asked for, else `split` if there is one; "" for none.

    Raises ConfigError for one that is not there.
    """
    if asked is None:
        return next((name for name in columns if name.lower() == SPLIT_FIELD), "")
    if asked:
        check_columns([("`split_field`", asked)], columns, place)
    return asked


def split_by_field(
    source: RecordSource | JoinedRecords, field: str, rest: str, *, any_word: bool = False
) -> dict[str, Subset]:
    """A record without a word is of the split `rest`. `any_word`: words that name no known split are splits too.

    Raises DataError for any other word. Records that cannot be read go where others are: they are named there.
    """
    chosen: dict[str, array[int]] = {}
    unread = array("q")
    of_word: dict[Any, str] = {}
    for index, record in enumerate(source.read(0, len(source), (field,))):
        word = value_at(record, field) if isinstance(record, Mapping) else None
        if isinstance(record, Bad):
            unread.append(index)
            continue
        if isinstance(word, list | dict):
            raise DataError(f"{source.place(index)}: field {shown(field)!r} is no word that names a split")
        if word not in of_word:
            of_word[word] = rest if is_blank(word) else _split(str(word), field, source.place(index), any_word)
        chosen.setdefault(of_word[word], array("q")).append(index)
    chosen.setdefault(rest if rest in chosen else next(iter(chosen), rest), array("q")).extend(unread)
    return {
        split: Subset(source, np.sort(np.array(rows, dtype=np.int64)), f"{split} by {field}")
        for split, rows in chosen.items()
    }


def _split(word: str, field: str, place: str, any_word: bool) -> str:
    split = split_word(word)
    if split not in SPLITS and not (any_word and _NAME.fullmatch(split)):
        way_out = "write it in small letters" if any_word else "name the field with `split_field` to take any word"
        raise DataError(
            f"{place}: field {shown(field)!r} says {shown(word)!r}, which is no split ({', '.join(SPLITS)}, "
            f"validation, dev, restval ...); {way_out}, or leave the field aside with `split_field` ''"
        )
    return split
