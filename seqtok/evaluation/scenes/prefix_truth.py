"""Prefix truth: of the pictures that are drawn from the first k tokens, how many show what a caption says?

A decoder that averages cannot show what a short prefix says: it draws the mean of all pictures that agree with it. So
pictures are *drawn* from the prefix, several of each, and the reader judges every one. Chance is what the same drawings
score for other scenes, the ceiling what real pictures score. Shapes: B pictures, K latents of D channels, k <= K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from pydantic import Field
from torch import Tensor

from ar_model.sampling import SampleConfig
from data_pipelines.scenes import Scene
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import PrefixTokenizer, agreement, decode_all, encode_all
from seqtok.evaluation.scenes import generation
from seqtok.evaluation.scenes.generation import Verdict
from seqtok.evaluation.scenes.reader import Reading, SceneReader
from seqtok.evaluation.scenes.scoring import ATTRIBUTES, FINEST, LEVELS
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok_core.foundation.config import Config

Readings = dict[int, list[list[Reading]]]  # k -> by drawing, by picture
Drawer = Callable[[Tensor, int], Tensor]  # first k latents (B, k, D), seed -> (B, 3, H, W) uint8


class PrefixTruthConfig(Config):
    """How pictures are drawn from prefixes for judgement."""

    sample: SampleConfig = SampleConfig(guidance=1.0)
    seeds: int = 4  # pictures drawn from each prefix
    candidates: int = Field(1, ge=1)  # drawn for each, of which the one is taken whose own first tokens agree best


class Completer(Protocol):
    """A sequence model that continues a prefix."""

    @property
    def head_kind(self) -> str: ...

    def complete(
        self,
        latents: Tensor,
        prompts: Sequence[str] | None,
        config: SampleConfig,
        *,
        seed: int,
        candidates: int,
        score: Callable[[Tensor], Tensor],
    ) -> Tensor: ...


def by_completion(
    tokenizer: PrefixTokenizer, generator: Completer, config: SampleConfig, candidates: int = 1
) -> Drawer:
    """The sequence model draws the missing tokens, without a prompt, and the decoder the picture. Of several candidates
    that one is taken whose picture the tokenizer begins with the same tokens: no caption and no reader is asked."""

    def draw(latents: Tensor, seed: int) -> Tensor:
        score = agreement(tokenizer, latents)
        whole = generator.complete(latents, None, config, seed=seed, candidates=candidates, score=score)
        return decode_all(tokenizer, whole, whole.shape[1])

    return draw


@torch.no_grad()
def prefix_truth(
    tokenizer: PrefixTokenizer,
    draw: Drawer,
    scenes: Sequence[Scene],
    reader: SceneReader,
    size: int,
    seeds: int,
) -> dict[str, Any]:
    """-> `prefix_truth`: by caption level and by attribute, k -> share of right pictures with its interval, chance and
    ceiling; `decoded_truth`: the same of what the decoder alone makes of k tokens; and the seconds of each stage.

    A level is right when all that its caption says is true at once; an attribute alone ignores the others. Intervals
    are Wilson's for the number of pictures: several drawings of one picture are not independent.
    """
    watch = Stopwatch()
    pictures = generation.real_pictures(scenes, size)
    with watch.stage("encode", len(scenes)):
        latents = encode_all(tokenizer, pictures)
    lengths = prefix_lengths(latents.shape[1])
    real = generation.read_pictures(reader, pictures)
    decoded, drawn = {}, {}
    for k in lengths:
        with watch.stage(f"decode {k}", len(scenes)):
            decoded[k] = [generation.read_pictures(reader, decode_all(tokenizer, latents, k))]
        with watch.stage(f"draw from {k}", len(scenes) * seeds):
            drawn[k] = [generation.read_pictures(reader, draw(latents[:, :k], seed)) for seed in range(seeds)]
    return {
        "prefix_truth": _table(drawn, real, scenes),
        "decoded_truth": _table(decoded, real, scenes),
        "stages": watch.stages,
    }


@dataclass(frozen=True)
class _Judged:
    """Verdicts on all attributes that the captions of one level speak of."""

    drawn: dict[int, list[list[Verdict]]]  # k -> a list for each drawing
    chance: dict[int, list[Verdict]]
    real: list[Verdict]

    @classmethod
    def at(cls, level: int, pictures: Readings, real: list[Reading], scenes: Sequence[Scene]) -> Self:
        return cls(
            {k: [generation.judge(own, scenes, level) for own in readings] for k, readings in pictures.items()},
            {k: generation.chance_verdicts(readings[0], scenes, level) for k, readings in pictures.items()},
            generation.judge(real, scenes, level),
        )

    def row(self, attribute: str) -> dict[str, Any]:
        """Of one attribute, by k."""
        row: dict[str, Any] = {"value": {}, "low": {}, "high": {}, "chance": {}}
        for k, each in self.drawn.items():
            verdicts = [verdict for own in each for verdict in own]
            value = generation.share(verdicts, attribute)
            if value is None:
                continue
            said = sum(attribute in verdict for verdict in verdicts) // len(each)
            row["value"][str(k)] = value
            row["low"][str(k)], row["high"][str(k)] = generation.wilson(value, said)
            row["chance"][str(k)] = generation.share(self.chance[k], attribute)
        row["ceiling"] = generation.share(self.real, attribute)
        return row


def _table(pictures: Readings, real: list[Reading], scenes: Sequence[Scene]) -> dict[str, Any]:
    judged = [_Judged.at(level, pictures, real, scenes) for level in range(len(LEVELS))]
    levels = {name: of_level.row("everything") for name, of_level in zip(LEVELS, judged, strict=True)}
    alone = {name: judged[FINEST].row(name) for name in ATTRIBUTES}
    said = {name: row for name, row in alone.items() if row["value"]}  # by any of the scenes
    return {"levels": levels, "attributes": said}
