"""Pairs -> members of a shard: decode, resize, clean the captions; a bad sample is named, not fatal."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from PIL import Image

from data_pipelines.caption_text import CaptionRules, clean_captions
from data_pipelines.decode import DecodeError, decode_image, encode_image, is_plain, square
from data_pipelines.shard_files import json_member
from data_pipelines.sources import Bad, Pair

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
    def captions(self) -> CaptionRules: ...
    @property
    def no_caption(self) -> str: ...


def build_samples(
    pairs: Iterable[Pair | Bad], keys: Sequence[str | None], settings: Settings
) -> tuple[list[Sample], dict[str, Any]]:
    """-> samples, and facts: dropped [{source, reason, detail}], notes, levels, labels {name: words}."""
    samples: list[Sample] = []
    dropped: list[Bad] = []
    notes: Counter[str] = Counter()
    words: dict[str, set[str]] = {}
    levels = 0
    for pair, key in zip(pairs, keys, strict=True):
        made = _build(pair, key, settings, notes)
        if isinstance(made, Bad):
            dropped.append(made)
            continue
        sample, captions = made
        samples.append(sample)
        levels = max(levels, len(captions))
        assert isinstance(pair, Pair)
        for label, value in pair.labels.items():
            words.setdefault(label, set()).update([value] if isinstance(value, str) else [])
    facts = {
        "dropped": [{"source": bad.source, "reason": bad.reason, "detail": bad.detail} for bad in dropped],
        "notes": {note: count for note, count in notes.items() if count},
        "levels": levels,
        "labels": {label: sorted(found) for label, found in words.items()},
    }
    return samples, facts


def _build(
    pair: Pair | Bad, key: str | None, settings: Settings, notes: Counter[str]
) -> tuple[Sample, list[str]] | Bad:
    if isinstance(pair, Bad):
        return pair
    if key is None:
        return Bad(pair.source, "duplicate name")
    captions, changes = clean_captions(pair.captions, settings.captions)
    notes.update(changes)
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
