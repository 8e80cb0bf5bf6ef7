"""From a sequence model and scenes to what its captions are worth: the section `captions` of results.json.

Shapes: B pictures, K latents of D channels, k <= K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ar_model import CaptionConfig
from data_pipelines.scenes import Scene
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import PrefixTokenizer, encode_all
from seqtok.evaluation.report import protocol
from seqtok.evaluation.scenes.captions import attributes_right, caption_verdicts, summarise_captions
from seqtok.evaluation.scenes.generation import Verdict, real_pictures, share
from seqtok.evaluation.scenes.scoring import FINEST, LEVELS
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok_core.foundation.config import Config


class Writes(Protocol):
    """A sequence model that says what pictures show."""

    @property
    def caption_levels(self) -> int: ...

    @property
    def captions_from_prefixes(self) -> bool: ...

    def caption(self, latents: Tensor, config: CaptionConfig, *, level: int | None, seed: int) -> list[str]: ...


class CaptionEvaluation(Config):
    """How captions are written for judgement."""

    caption: CaptionConfig = CaptionConfig()
    seed: int = 0  # of words that are drawn


@dataclass(frozen=True)
class Captioned:
    """B pictures of scenes with what was said of them."""

    pictures: Tensor  # (B, 3, H, W) uint8
    captions: list[str]  # B, of the finest level
    verdicts: list[Verdict]  # B


@torch.no_grad()
def evaluate_captions(
    tokenizer: PrefixTokenizer, generator: Writes, scenes: Sequence[Scene], size: int, config: CaptionEvaluation
) -> tuple[dict[str, Any], Captioned]:
    """-> `captions` {attribute: its row}, `captions_right` (the share of all single attributes), where the model writes
    from prefixes `captions_by_prefix` {level: {k: share with everything right}}, and the captions."""
    watch = Stopwatch()
    pictures = real_pictures(scenes, size)
    latents = encode_all(tokenizer, pictures)

    def say(k: int, level: int) -> list[str]:
        asked = level if generator.caption_levels else None
        return generator.caption(latents[:, :k], config.caption, level=asked, seed=config.seed)

    with watch.stage("write captions", len(scenes)):
        captions = say(latents.shape[1], FINEST)
    table = summarise_captions(captions, scenes)
    results: dict[str, Any] = {"captions": table, "captions_right": attributes_right(table), "stages": watch.stages}
    if generator.captions_from_prefixes:
        levels = range(len(LEVELS)) if generator.caption_levels else (FINEST,)
        lengths = prefix_lengths(latents.shape[1])
        results["captions_by_prefix"] = {
            LEVELS[level]: {
                str(k): share(caption_verdicts(say(k, level), scenes, level), "everything") for k in lengths
            }
            for level in levels
        }
    results["protocol"] = protocol.of_captions(len(scenes), config.model_dump())
    return results, Captioned(pictures, captions, caption_verdicts(captions, scenes))
