"""What an eye reads from drawn pictures, held against the labels of the pictures that they were drawn for.

Chance is what the same drawings score for other pictures' labels, the ceiling what the real pictures score.
Shapes: B pictures, K latents of D channels, k <= K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ar_model.sampling import SampleConfig
from data_pipelines.samples import ImageTextBatch
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import PrefixTokenizer, decode_all, encode_all
from seqtok.evaluation.eyes.classifier import LabelEye
from seqtok.evaluation.runners.generation import Generator
from seqtok.evaluation.scenes.generation import wilson
from seqtok.evaluation.scenes.prefix_truth import Drawer
from seqtok.evaluation.stopwatch import Stopwatch

Right = dict[str, Tensor]  # label or level -> (B,) float, the share that is right, nan where the picture has no label


def levels_right(
    read: Mapping[str, Tensor], labels: Mapping[str, Tensor], levels: Mapping[str, Sequence[str]]
) -> Right:
    """Level -> of each picture the share of its labels that are read; and `everything`: whether all of all are."""
    found: Right = {}
    whole = torch.ones(len(next(iter(read.values()))))
    for level, names in levels.items():
        own = []
        for name in names:
            if name in read and name in labels:
                known = labels[name] >= 0
                right = (read[name] == labels[name]).float()
                whole = whole * torch.where(known, right, torch.ones_like(right))
                own.append(torch.where(known, right, torch.full_like(right, float("nan"))))
        if own:
            found[level] = torch.stack(own).nanmean(0)
    return {**found, "everything": whole} if found else {}


@torch.no_grad()
def judge_labels(
    tokenizer: PrefixTokenizer,
    generator: Generator,
    held_out: ImageTextBatch,
    eye: LabelEye,
    sample: SampleConfig,
    seed: int,
    levels: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Any], Tensor]:
    """Pictures of the finest captions of `held_out`, with and without guidance -> `reader`, `reader_unguided` (level ->
    value, low, high, chance, real), and the guided pictures at every prefix (B, P, 3, H, W)."""
    watch = Stopwatch()
    prompts = [captions[-1] for captions in held_out.captions]
    real = levels_right(eye.read(held_out.images), held_out.labels, levels)
    results: dict[str, Any] = {}
    shown = torch.empty(0)
    plain = sample.changed(guidance=1.0, temperature=1.0)
    for section, config in (("reader", sample), ("reader_unguided", plain)):
        with watch.stage(f"generate, {section}", len(prompts)):
            latents = generator.sample(prompts, config, seed=seed)
            pictures = decode_all(tokenizer, latents, latents.shape[1])
        read = eye.read(pictures)
        results[section] = _rows(levels_right(read, held_out.labels, levels), _others(read, held_out, levels), real)
        if section == "reader":
            lengths = prefix_lengths(latents.shape[1])
            shown = torch.stack([decode_all(tokenizer, latents, k) for k in lengths], 1)
    return results | {"stages": watch.stages}, shown


@torch.no_grad()
def label_truth(
    tokenizer: PrefixTokenizer,
    draw: Drawer,
    held_out: ImageTextBatch,
    eye: LabelEye,
    levels: Mapping[str, Sequence[str]],
    seeds: int,
) -> dict[str, Any]:
    """-> `prefix_truth`: by level k -> share of pictures drawn from k tokens in which the eye reads the labels of the
    picture that they are of; see evaluation.scenes.prefix_truth."""
    watch = Stopwatch()
    latents = encode_all(tokenizer, held_out.images)
    real = levels_right(eye.read(held_out.images), held_out.labels, levels)
    table: dict[str, dict[str, Any]] = {
        level: {"value": {}, "low": {}, "high": {}, "chance": {}, "ceiling": _mean(own)}
        for level, own in real.items()
        if level != "everything"
    }
    for k in prefix_lengths(latents.shape[1]):
        with watch.stage(f"draw from {k}", len(latents) * seeds):
            reads = [eye.read(draw(latents[:, :k], seed)) for seed in range(seeds)]
        right = [levels_right(read, held_out.labels, levels) for read in reads]
        others = _others(reads[0], held_out, levels)
        for level, row in table.items():
            value = _mean(torch.cat([own[level] for own in right]))
            row["value"][str(k)], row["chance"][str(k)] = value, _mean(others[level])
            row["low"][str(k)], row["high"][str(k)] = wilson(value, int((~right[0][level].isnan()).sum()))
    return {"prefix_truth": {"levels": table, "attributes": {}}, "stages": watch.stages}


def _others(read: Mapping[str, Tensor], held_out: ImageTextBatch, levels: Mapping[str, Sequence[str]]) -> Right:
    """What is read, held against the labels of the next pictures."""
    shifts = range(1, min(40, len(held_out) - 1) + 1)
    rows = [
        levels_right(read, {name: own.roll(shift) for name, own in held_out.labels.items()}, levels) for shift in shifts
    ]
    return {level: torch.cat([row[level] for row in rows]) for level in rows[0]}


def _rows(right: Right, chance: Right, real: Right) -> dict[str, dict[str, Any]]:
    """As those of the reader of scenes; no split into seen and unseen combinations is known here."""
    rows: dict[str, dict[str, Any]] = {}
    split: dict[str, Any] = dict.fromkeys(("seen", "unseen", "chance_seen", "chance_unseen"))
    for level, own in right.items():
        value, count = _mean(own), int((~own.isnan()).sum())
        low, high = wilson(value, count)
        rows[level] = {"value": value, "low": low, "high": high, "prompts": count}
        rows[level] |= {"chance": _mean(chance[level]), "real": _mean(real[level]), **split}
        rows[level] |= {"prompts_seen": 0, "prompts_unseen": 0}
    return rows


def _mean(values: Tensor) -> float:
    return float(values.nanmean())
