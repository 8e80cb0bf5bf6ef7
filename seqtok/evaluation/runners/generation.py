"""From a sequence model and scenes to its sections of results.json, and the pictures of the report.

Shapes: B pictures, m prompts, P prefix lengths, K latents of D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ar_model.sampling import SampleConfig, Score, SearchConfig
from data_pipelines.scenes import Scene
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import PrefixTokenizer, decode_all, encode_all
from seqtok.evaluation.report import protocol
from seqtok.evaluation.report.kept_pictures import ReportPictures
from seqtok.evaluation.runners.captions import Captioned
from seqtok.evaluation.runners.ceilings import everything_by_shapes, second_opinion
from seqtok.evaluation.scenes import generation
from seqtok.evaluation.scenes.prefix_truth import (
    Completer,
    Drawer,
    PrefixTruthConfig,
    by_completion,
    prefix_truth,
)
from seqtok.evaluation.scenes.reader import Reading, SceneReader
from seqtok.evaluation.scenes.scoring import FINEST
from seqtok.evaluation.scenes.variety import position_spread
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok_core.foundation.config import Config

Results = dict[str, Any]
_DRAWINGS = 2  # of every prefix in a report


class Generator(Protocol):
    """A sequence model."""

    @property
    def head_kind(self) -> str: ...

    def sample(
        self,
        prompts: Sequence[str],
        config: SampleConfig,
        *,
        seed: int,
        candidates: int = 1,
        beams: int = 1,
        score: Score | None = None,
    ) -> Tensor: ...


class GenerationConfig(Config):
    """How pictures are drawn from a sequence model for judgement."""

    sample: SampleConfig = SampleConfig()
    search: SearchConfig = SearchConfig()
    seed: int = 0
    level: int = FINEST  # caption level that is the prompt, 0 coarse .. 3 fine


@dataclass(frozen=True)
class Generated:
    """m prompts with their pictures at P prefix lengths."""

    prompts: list[str]
    prefixes: tuple[int, ...]
    pictures: Tensor  # (m, P, 3, H, W) uint8
    verdicts: list[generation.Verdict]  # m, of the pictures at full length
    unseen: list[bool]  # m


@torch.no_grad()
def evaluate_generation(
    tokenizer: PrefixTokenizer,
    generator: Generator,
    scenes: Sequence[Scene],
    reader: SceneReader,
    config: GenerationConfig,
    score: Callable[[Sequence[str]], Score | None] = lambda prompts: None,
) -> tuple[Results, Generated]:
    """One picture per scene's caption, judged by the reader, at every prefix length; and one more without guidance or
    search. `score`: of prompts, says which of several drawings is kept where the settings ask for several."""
    watch = Stopwatch()
    prompts = [scene.captions[config.level] for scene in scenes]
    with watch.stage("generate", len(prompts)):
        search = config.search.model_dump() | {"score": score(prompts)} if config.search.chooses else {}
        latents = generator.sample(prompts, config.sample, seed=config.seed, **search)
        prefixes = prefix_lengths(latents.shape[1])
        decoded = {k: decode_all(tokenizer, latents, k) for k in prefixes}
    results, verdicts = judge_pictures(decoded, scenes, reader, config.level, watch)
    plain = config.sample.changed(guidance=1.0, temperature=1.0)
    with watch.stage("generate without guidance", len(prompts)):
        latents = generator.sample(prompts, plain, seed=config.seed)
    whole = {latents.shape[1]: decode_all(tokenizer, latents, latents.shape[1])}
    alone, unguided = judge_pictures(whole, scenes, reader, config.level, Stopwatch())
    results["reader_unguided"] = alone["reader"]
    with watch.stage("judge again", 4 * len(scenes)):
        real = generation.real_pictures(scenes, decoded[prefixes[-1]].shape[-1])
        rebuilt = decode_all(tokenizer, encode_all(tokenizer, real), prefixes[-1])
        sets = {"guided": decoded[prefixes[-1]], "unguided": whole[latents.shape[1]], "rebuilt": rebuilt, "real": real}
        results["second_reader"] = second_opinion(sets, scenes, config.level)
        again = generation.judge(generation.read_pictures(reader, rebuilt), scenes, config.level)
    results["reader_rebuilt"] = {name: generation.share(again, name) for name in results["reader"]}
    results["by_shapes"] = everything_by_shapes({"guided": verdicts, "unguided": unguided, "rebuilt": again}, scenes)
    if config.level == FINEST:
        own = scenes[: protocol.VARIED]
        results["variety"] = {
            "reader": measure_variety(tokenizer, generator, own, reader, config.sample, config.seed),
            "reader_unguided": measure_variety(tokenizer, generator, own, reader, plain, config.seed),
        }
    results["protocol"] = protocol.of_generation(len(scenes), config.model_dump(), generator.head_kind)
    pictures = torch.stack([decoded[k] for k in prefixes], 1)
    return results, Generated(prompts, prefixes, pictures, verdicts, [scene.unseen for scene in scenes])


@torch.no_grad()
def measure_variety(
    tokenizer: PrefixTokenizer,
    generator: Generator,
    scenes: Sequence[Scene],
    reader: SceneReader,
    sample: SampleConfig,
    seed: int,
) -> dict[str, float | None]:
    """How far apart the shapes of two drawings of one prompt stand, and those of real pictures of one caption."""
    prompts = [scene.captions[FINEST] for scene in scenes]

    def drawn(seed: int) -> list[Reading]:
        latents = generator.sample(prompts, sample, seed=seed)
        return generation.read_pictures(reader, decode_all(tokenizer, latents, latents.shape[1]))

    return position_spread(drawn(seed), drawn(seed + 1), scenes)


def evaluate_prefixes(
    tokenizer: PrefixTokenizer,
    generator: Completer,
    scenes: Sequence[Scene],
    reader: SceneReader,
    size: int,
    config: PrefixTruthConfig,
) -> tuple[Results, Drawer]:
    """What pictures of `size` pixels that are drawn from prefixes show, and how they are drawn."""
    draw = by_completion(tokenizer, generator, config.sample, config.candidates)
    results = prefix_truth(tokenizer, draw, scenes, reader, size, config.seeds)
    return {**results, "protocol": protocol.of_prefixes(len(scenes), config.model_dump(), generator.head_kind)}, draw


def judge_pictures(
    decoded: Mapping[int, Tensor],
    scenes: Sequence[Scene],
    reader: SceneReader,
    level: int,
    watch: Stopwatch,
) -> tuple[Results, list[generation.Verdict]]:
    """k -> pictures (B, 3, H, W) uint8 of the scenes' captions -> `reader`, `reader_by_prefix`, `stages`,
    and the verdicts on the pictures of full length."""
    longest = max(decoded)
    with watch.stage("judge", len(scenes) * (len(decoded) + 1)):
        real = generation.read_pictures(reader, generation.real_pictures(scenes, decoded[longest].shape[-1]))
        ceiling = generation.judge(real, scenes, level)
        chance = generation.chance_verdicts(real, scenes, level)
        verdicts = {
            k: generation.judge(generation.read_pictures(reader, pictures), scenes, level)
            for k, pictures in decoded.items()
        }
        table = generation.summarise_verdicts(verdicts[longest], chance, ceiling, scenes)
        by_prefix = {name: {str(k): generation.share(own, name) for k, own in verdicts.items()} for name in table}
    return {"reader": table, "reader_by_prefix": by_prefix, "stages": watch.stages}, verdicts[longest]


def pictures_for_report(
    tokenizer: PrefixTokenizer,
    images: Tensor,
    generated: Generated | None = None,
    prompts: int = 12,
    draw: Drawer | None = None,
    captioned: Captioned | None = None,
) -> ReportPictures:
    """images (n, 3, H, W) uint8, held out and not chosen, each rebuilt from every prefix, and drawn from it where it
    is said how; and the first `prompts` generated rows and captions."""
    latents = encode_all(tokenizer, images)
    prefixes = prefix_lengths(latents.shape[1])
    rebuilt = torch.stack([decode_all(tokenizer, latents, k) for k in prefixes], 1)
    drawn = None if draw is None else _drawn(draw, latents, prefixes)
    said: dict[str, Any] = {}
    if captioned is not None:
        said = {"captioned": captioned.pictures[:prompts], "captions": captioned.captions[:prompts]}
        said["caption_verdicts"] = captioned.verdicts[:prompts]
    if generated is None:
        return ReportPictures(prefixes, images, rebuilt, drawn=drawn, **said)
    assert generated.prefixes == prefixes, "the pictures come from another tokenizer"
    return ReportPictures(
        prefixes,
        images,
        rebuilt,
        generated.prompts[:prompts],
        generated.pictures[:prompts],
        generated.verdicts[:prompts],
        generated.unseen[:prompts],
        drawn=drawn,
        **said,
    )


def _drawn(draw: Drawer, latents: Tensor, prefixes: Sequence[int]) -> Tensor:
    """-> (n, S, P, 3, H, W) uint8."""
    by_prefix = [torch.stack([draw(latents[:, :k], seed) for seed in range(_DRAWINGS)], 1) for k in prefixes]
    return torch.stack(by_prefix, 2)
