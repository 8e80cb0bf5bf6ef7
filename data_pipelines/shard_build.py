"""Pairs -> members of a shard: decode, resize, clean the captions; a bad sample is named, not fatal."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from PIL import Image

from data_pipelines.caption_text import MAX_CHARACTERS, normalise_caption
from data_pipelines.decode import DecodeError, decode_image, encode_image, is_plain, square
from data_pipelines.shard_files import json_member
from data_pipelines.sources import Bad, Pair
from seqtok_core.foundation.errors import DataError

Sample = tuple[str, dict[str, bytes]]


class Settings(Protocol):
    """The part of PrepareConfig that decides a sample's bytes."""

    @property
    def size(self) -> int: ...
    @property
    def form(self) -> Any: ...
    @property
    def quality(self) -> int: ...
    @property
    def max_pixels(self) -> int: ...
    @property
    def no_caption(self) -> str: ...
    @property
    def max_bad_run(self) -> int: ...


def build_samples(
    pairs: Iterable[Pair | Bad], keys: Sequence[str | None], settings: Settings
) -> tuple[list[Sample], dict[str, Any]]:
    """-> samples, and facts: dropped [{source, reason, detail}], notes, levels, labels {name: words}.

    Raises DataError at `max_bad_run` bad samples in a row: a source that is lost is no matter of single samples.
    """
    samples: list[Sample] = []
    dropped: list[Bad] = []
    notes: Counter[str] = Counter()
    words: dict[str, set[str]] = {}
    levels = run = 0
    for pair, key in zip(pairs, keys, strict=True):
        made = _build(pair, key, settings, notes)
        if isinstance(made, Bad):
            dropped.append(made)
            run += not made.filtered
            if 0 < settings.max_bad_run <= run:
                raise DataError(_bad_run(dropped, run))
            continue
        run = 0
        sample, captions = made
        samples.append(sample)
        levels = max(levels, len(captions))
        assert isinstance(pair, Pair)
        for label, value in pair.labels.items():
            words.setdefault(label, set()).update([value] if isinstance(value, str) else [])
    facts = {
        "dropped": [_named(bad) for bad in dropped],
        "notes": {note: count for note, count in notes.items() if count},
        "levels": levels,
        "labels": {label: sorted(found) for label, found in words.items()},
    }
    return samples, facts


def _named(bad: Bad) -> dict[str, Any]:
    named: dict[str, Any] = {"source": bad.source, "reason": bad.reason, "detail": bad.detail}
    return {**named, "filtered": True} if bad.filtered else named


def _bad_run(dropped: Sequence[Bad], run: int) -> str:
    found = [bad for bad in dropped if not bad.filtered][-run:]
    first, last = found[0], found[-1]
    return (
        f"{run} bad samples in a row, from {first.source} ({first.reason}) to {last.source} ({last.reason} "
        f"{last.detail}); mend the source, or allow longer runs (max_bad_run)"
    )


def _build(
    pair: Pair | Bad, key: str | None, settings: Settings, notes: Counter[str]
) -> tuple[Sample, list[str]] | Bad:
    if isinstance(pair, Bad):
        return pair
    if key is None:
        return Bad(pair.source, "duplicate name")
    captions = _captions(pair, notes)
    if not captions and settings.no_caption == "drop":
        return Bad(pair.source, "no caption")
    try:
        extension, data, digest = _picture(pair, settings, notes)
    except DecodeError as error:
        return Bad(pair.source, error.reason, str(error)[:200])
    record = {
        "captions": captions,
        "labels": dict(pair.labels),
        "source": pair.source,
        "sha256": digest,
        "width": settings.size,
        "height": settings.size,
    }
    text = captions[-1] if captions else ""
    return (key, {extension: data, "json": json_member(record), "txt": text.encode()}), captions


def _captions(pair: Pair, notes: Counter[str]) -> list[str]:
    cleaned = [normalise_caption(text) for text in pair.captions]
    notes.update(
        {
            "captions shortened": sum(len(text) > MAX_CHARACTERS for text in pair.captions),
            "empty captions left out": cleaned.count(""),
        }
    )
    return [text for text in cleaned if text]


def _picture(pair: Pair, settings: Settings, notes: Counter[str]) -> tuple[str, bytes, str]:
    """(extension, file content, sha256 of what the source gave). A fitting picture keeps its very bytes."""
    if not isinstance(pair.image, bytes):
        image = square(Image.fromarray(pair.image), settings.size)
        digest = hashlib.sha256(pair.image.tobytes()).hexdigest()
        return settings.form, encode_image(image, settings.form, settings.quality), digest
    digest = hashlib.sha256(pair.image).hexdigest()
    image = decode_image(pair.image, settings.max_pixels)
    kept = is_plain(pair.image, settings.size)
    if kept:
        notes["pictures kept byte for byte"] += 1
        return kept, pair.image, digest
    return settings.form, encode_image(square(image, settings.size), settings.form, settings.quality), digest
