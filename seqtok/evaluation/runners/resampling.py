"""From a sequence model and scenes to what the first tokens fix: `resampling` and `forced` of results.json.

Shapes: B pictures, K latents of D channels, k <= K, S drawings, P numbers of tokens kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor

from ar_model.sampling import SampleConfig
from data_pipelines.scenes import Scene
from seq_tokenizer.prefixes import PrefixTokenizer, decode_all, encode_all
from seqtok.evaluation.report import protocol
from seqtok.evaluation.scenes import resampling
from seqtok.evaluation.scenes.generation import read_pictures, real_pictures
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.scoring import FINEST
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok_core.foundation.config import Config

Results = dict[str, Any]
_SHOWN, _DRAWINGS = 8, 2  # pictures of the report, and redrawings of each


class ResamplingConfig(Config):
    """How the rest is drawn anew."""

    sample: SampleConfig = SampleConfig(guidance=1.0)
    seeds: int = Field(4, ge=2)  # drawings of each picture and number of tokens kept


class Redraws(Protocol):
    """A sequence model that goes on from kept tokens."""

    @property
    def head_kind(self) -> str: ...

    def complete(
        self, latents: Tensor, prompts: Sequence[str] | None, config: SampleConfig, *, seed: int
    ) -> Tensor: ...


@torch.no_grad()
def evaluate_resampling(
    tokenizer: PrefixTokenizer,
    generator: Redraws,
    scenes: Sequence[Scene],
    reader: SceneReader,
    size: int,
    kept: Sequence[int],
    config: ResamplingConfig,
) -> tuple[Results, Tensor]:
    """`kept`: numbers of tokens, from 0 to K. -> `resampling`: by what the rest comes from ("model", "swapped",
    "noise"), "attributes" and "labels" {name: {k: share that stays}}, "psnr" and "std" {k: value}, and under "chance"
    and "ceiling" what pictures of other scenes and the originals score; `forced` {attribute: {m: share}}: the first m
    true tokens, then free with the prompt. And redrawings by the model for the report, (n, S, P, 3, H, W) uint8."""
    watch = Stopwatch()
    pictures = real_pictures(scenes, size)
    with watch.stage("encode", len(scenes)):
        latents = encode_all(tokenizer, pictures)
    length, drawn = latents.shape[1], len(scenes) * len(kept) * config.seeds

    def go_on(k: int, seed: int, prompts: Sequence[str] | None = None) -> Tensor:
        return generator.complete(latents[:, :k], prompts, config.sample, seed=seed)

    ways: Mapping[str, resampling.Redraw] = {
        "model": go_on,
        "swapped": partial(resampling.swapped_tails, latents),
        "noise": partial(resampling.noise_tails, latents),
    }
    found: Results = {}
    shown: list[Tensor] = []
    for way, redraw in ways.items():
        with watch.stage(f"redraw, {way}", drawn):
            points: dict[str, Results] = {}
            for k in kept:
                redrawn = torch.stack([decode_all(tokenizer, redraw(k, s), length) for s in range(config.seeds)])
                points[str(k)] = _point(redrawn, pictures, scenes, reader)
                if way == "model":
                    shown.append(redrawn[:_DRAWINGS, :_SHOWN].transpose(0, 1))
        found[way] = by_kept(points)
    real = read_pictures(reader, pictures)
    found["chance"] = {
        "attributes": resampling.attributes_by_chance(real, scenes),
        "labels": resampling.labels_by_chance(real, scenes),
    }
    found["ceiling"] = {
        "attributes": resampling.attributes_kept([real], scenes),
        "labels": resampling.labels_kept([real], scenes),
    }
    prompts = [scene.captions[FINEST] for scene in scenes]
    with watch.stage("forced, then free", drawn):
        forced: dict[str, Results] = {}
        for m in kept:
            free = [decode_all(tokenizer, go_on(m, seed, prompts), length) for seed in range(config.seeds)]
            forced[str(m)] = resampling.attributes_kept([read_pictures(reader, own) for own in free], scenes)
    results = {"resampling": found, "forced": by_kept(forced), "stages": watch.stages}
    said = protocol.of_resampling(len(scenes), config.model_dump(), generator.head_kind)
    return {**results, "protocol": said}, torch.stack(shown, 2)


def _point(redrawn: Tensor, pictures: Tensor, scenes: Sequence[Scene], reader: SceneReader) -> Results:
    """What stays in pictures redrawn (S, B, 3, H, W)."""
    readings = [read_pictures(reader, own) for own in redrawn]
    return {
        "attributes": resampling.attributes_kept(readings, scenes),
        "labels": resampling.labels_kept(readings, scenes),
        **resampling.pixels_kept(redrawn, pictures),
    }


def by_kept(points: Mapping[str, Any]) -> Results:
    """k -> name -> (name ->) value turned inside out: name -> (name ->) k -> value."""
    turned: Results = {}
    for name, value in next(iter(points.values())).items():
        own = {k: point[name] for k, point in points.items()}
        turned[name] = by_kept(own) if isinstance(value, dict) else own
    return turned
