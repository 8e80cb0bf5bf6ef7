"""Pairs -> members of a shard: decode, resize, clean the captions; a bad sample is named, not fatal."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.captions.clean import clean_captions
from data_pipelines.pictures.decode import DecodeError, decode_picture, encode_image, fitting_form
from data_pipelines.pictures.profiles import CONVERTED
from data_pipelines.pictures.resize import square
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.files import json_member
from data_pipelines.sources.base import Bad, Pair
from seqtok_core.foundation.errors import DataError

Sample = tuple[str, dict[str, bytes]]


def build_samples(
    pairs: Iterable[Pair | Bad], keys: Sequence[str | None], config: PrepareConfig
) -> tuple[Iterator[Sample], dict[str, Any]]:
    """-> samples, made one by one as they are taken, and facts, which are complete once all have been taken:
    dropped [{source, reason, detail}], notes {what: how often}, levels, labels {name: words}.

    Taking a sample raises DataError at `max_bad_run` bad ones in a row: a source that is lost is no matter of
    single samples.
    """
    facts: dict[str, Any] = {"dropped": [], "notes": {}, "levels": 0, "labels": {}}
    return _samples(pairs, keys, config, facts), facts


def _samples(
    pairs: Iterable[Pair | Bad], keys: Sequence[str | None], config: PrepareConfig, facts: dict[str, Any]
) -> Iterator[Sample]:
    notes: Counter[str] = Counter()
    words: dict[str, set[str]] = {}
    run: list[Bad] = []  # the bad samples since the last good one
    pixels = np.empty((config.size, config.size, 3), np.uint8)  # one for all: fresh memory costs page faults
    for pair, key in zip(pairs, keys, strict=True):
        made = _build(pair, key, config, pixels, notes)
        if isinstance(made, Bad):
            facts["dropped"].append(_named(made))
            run += [] if made.filtered else [made]
            if 0 < config.max_bad_run <= len(run):
                raise DataError(_bad_run(run))
            continue
        run = []
        sample, captions = made
        assert isinstance(pair, Pair)
        facts["levels"] = max(facts["levels"], len(captions))
        for label, value in pair.labels.items():
            words.setdefault(label, set()).update([_text(value)] if isinstance(value, str) else [])
        yield sample
    facts["notes"] = {note: count for note, count in notes.items() if count}
    facts["labels"] = {label: sorted(found) for label, found in words.items()}


def _named(bad: Bad) -> dict[str, Any]:
    named: dict[str, Any] = {"source": _text(bad.source), "reason": _text(bad.reason), "detail": _text(bad.detail)}
    return {**named, "filtered": True} if bad.filtered else named


def _text(text: str) -> str:
    """Lone surrogates, which names of files and JSON may hold and UTF-8 may not, as \\udXXX."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _bad_run(run: Sequence[Bad]) -> str:
    first, last = run[0], run[-1]
    return (
        f"{len(run)} bad samples in a row, from {first} to {last}; mend the source, or allow longer runs "
        "(`max_bad_run`)"
    )


def _build(
    pair: Pair | Bad, key: str | None, config: PrepareConfig, pixels: NDArray[np.uint8], notes: Counter[str]
) -> tuple[Sample, list[str]] | Bad:
    if isinstance(pair, Bad):
        return pair
    if key is None:
        return Bad(pair.source, "duplicate name")
    captions, changes = clean_captions(pair.captions, config.captions)
    notes.update(changes)
    if not captions and config.no_caption == "drop":
        return Bad(pair.source, "no caption")
    try:
        extension, data, digest = _picture(pair, config, pixels, notes)
    except DecodeError as error:
        return Bad(pair.source, error.reason, str(error))
    record = {
        "captions": captions,
        "labels": {name: _text(value) if isinstance(value, str) else value for name, value in pair.labels.items()},
        "source": _text(pair.source),
        "sha256": digest,
        "width": config.size,
        "height": config.size,
    }
    text = captions[-1] if captions else ""
    return (key, {extension: data, "json": json_member(record), "txt": text.encode()}), captions


def _picture(pair: Pair, config: PrepareConfig, out: NDArray[np.uint8], notes: Counter[str]) -> tuple[str, bytes, str]:
    """(extension, file content, sha256 of what the source gave). A fitting picture keeps its very bytes."""
    size, form = config.size, config.form
    if not isinstance(pair.image, bytes):
        pixels = square(pair.image, size)
        digest = hashlib.sha256(pair.image.tobytes()).hexdigest()
        return form, encode_image(pixels, form, config.quality, config.subsampling), digest
    digest = hashlib.sha256(pair.image).hexdigest()
    picture = decode_picture(pair.image, size, config.max_pixels, out, config.resize)
    fits = picture.stored == (size, size) and CONVERTED not in picture.notes
    kept = fitting_form(pair.image, size) if fits else None
    if kept:
        notes["pictures kept byte for byte"] += 1
        return kept, pair.image, digest
    notes.update(picture.notes)
    return form, encode_image(picture.pixels, form, config.quality, config.subsampling), digest
