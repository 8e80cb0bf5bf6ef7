"""What a preparation would make of a few samples of its sources, without writing anything."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from data_pipelines.captions.clean import clean_captions
from data_pipelines.prepare.build import build_samples
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.base import Bad, Pair, Source

SHOWN = 10
_BLOCK = 512  # bytes; a tar pads each member to blocks and puts one before it


@dataclass(frozen=True, kw_only=True)
class PreviewedSample:
    """One sample, or why it cannot be used."""

    split: str
    source: str
    picture: str = ""  # size, mode, format and bytes as the source has it
    captions: tuple[str, ...] = ()  # as they would be written
    labels: Mapping[str, int | str] = field(default_factory=dict)
    problem: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0  # in a shard


def preview(sources: Mapping[str, Source], config: PrepareConfig, count: int = SHOWN) -> list[PreviewedSample]:
    """`count` samples, evenly spread over the splits and each from its first to its last."""
    shown = []
    order = sorted(sources)
    for number, split in enumerate(order):
        share = count // len(order) + (number < count % len(order))
        source = sources[split]
        chosen = np.unique(np.linspace(0, len(source) - 1, min(share, len(source)), dtype=np.int64))
        shown += [_show(split, next(iter(source.pairs(i, i + 1))), config) for i in chosen.tolist()]
    return shown


def bytes_per_sample(shown: list[PreviewedSample]) -> float:
    """Mean over those that would be written; 0 where none would."""
    sizes = [item.bytes for item in shown if not item.problem]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _show(split: str, pair: Pair | Bad, config: PrepareConfig) -> PreviewedSample:
    if isinstance(pair, Bad):
        return PreviewedSample(split=split, source=pair.source, problem=pair.why)
    made, facts = build_samples([pair], ["sample"], config)
    samples = list(made)
    picture = _describe(pair)
    if not samples:
        bad = Bad(**facts["dropped"][0])
        return PreviewedSample(split=split, source=pair.source, picture=picture, labels=pair.labels, problem=bad.why)
    _, members = samples[0]
    captions, _ = clean_captions(pair.captions, config.captions)
    return PreviewedSample(
        split=split,
        source=pair.source,
        picture=picture,
        captions=tuple(captions),
        labels=pair.labels,
        notes=facts["notes"],
        bytes=sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for data in members.values()),
    )


def _describe(pair: Pair) -> str:
    if not isinstance(pair.image, bytes):
        height, width = pair.image.shape[:2]
        return f"{width} x {height} RGB, drawn"
    try:
        with Image.open(io.BytesIO(pair.image)) as image:
            return f"{image.width} x {image.height} {image.mode} {image.format}, {len(pair.image)} bytes"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return f"{len(pair.image)} bytes"
