"""From a sequence model and labelled pictures to what it understands of them: the sections `understanding` and
`zero_shot` of results.json.

Does a model that was taught to draw in this order come to know what pictures show? Linear probes read its hidden
states, and beside them the latents that went in. Shapes: N pictures, K latents of D channels, L blocks of W channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor

from data_pipelines.samples import ImageTextBatch, LatentTextBatch
from seqtok.evaluation.metrics.state_probes import Splits, probe_sources
from seqtok.evaluation.metrics.zero_shot import choice_accuracy, choice_of
from seqtok.evaluation.report import protocol
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok_core.foundation.config import Config

_BATCH = 64  # pictures read at once: states of all blocks and tokens are in memory together
_VAL_EVERY = 5  # one picture in so many of those to fit on is held out where there is no val split


class UnderstandingConfig(Config):
    """How understanding is judged."""

    candidates: int = Field(64, ge=2)  # most captions that a picture's own is chosen among; larger levels are left out


class Understands(Protocol):
    """A sequence model."""

    @property
    def writes(self) -> bool: ...

    @property
    def caption_levels(self) -> int: ...

    def states(self, latents: Tensor) -> Tensor: ...

    def score_captions(self, latents: Tensor, captions: Sequence[str], *, level: int | None) -> Tensor: ...


@dataclass(frozen=True)
class LabelledLatents:
    """N pictures as the tokenizer gave them, and what is known of them."""

    latents: Tensor  # (N, K, D)
    labels: Mapping[str, Tensor]  # name -> (N,) int64, below 0 where a picture has none
    captions: Sequence[Sequence[str]]  # N
    level_mask: Tensor  # (N, levels) bool, which levels a picture's captions are of

    @classmethod
    def of_batch(cls, batch: ImageTextBatch | LatentTextBatch, latents: Tensor) -> LabelledLatents:
        return cls(latents, batch.labels, batch.captions, batch.level_mask)

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, chosen: Tensor) -> LabelledLatents:
        """chosen (n,) int64."""
        labels = {name: values[chosen] for name, values in self.labels.items()}
        captions = [self.captions[row] for row in chosen.tolist()]
        return LabelledLatents(self.latents[chosen], labels, captions, self.level_mask[chosen])

    def of_level(self, level: int) -> tuple[Tensor, list[str]]:
        """-> (n,) int64, the pictures that have a caption of it, and these n captions."""
        rows = self.level_mask[:, level].nonzero()[:, 0]
        return rows, [self.captions[row][level] for row in rows.tolist()]


def held_out_for_layers(known: LabelledLatents) -> tuple[LabelledLatents, LabelledLatents]:
    """Pictures to fit on -> four fifths of them, and every fifth, on which layers are chosen."""
    own = torch.arange(len(known)) % _VAL_EVERY == _VAL_EVERY - 1
    return known.rows((~own).nonzero()[:, 0]), known.rows(own.nonzero()[:, 0])


@torch.no_grad()
def evaluate_understanding(
    generator: Understands,
    parts: Splits[LabelledLatents],
    config: UnderstandingConfig,
    *,
    levels: Mapping[str, Sequence[str]] | None = None,
    meaning: Callable[[str], str] = str,
) -> dict[str, Any]:
    """-> `understanding`, as `probe_sources` has it, with what else was left out; `zero_shot` {level: its row}, where
    the model writes and a level has few enough captions; `protocol` and `stages`. `levels` and `meaning` are those of
    `evaluate_tokenizer`."""
    watch = Stopwatch()
    with watch.stage("read pictures", sum(map(len, parts))):
        features = [probed_features(generator, part.latents) for part in parts]
    sources = {name: Splits(*(own[name] for own in features)) for name in features[0]}
    with watch.stage("probes of states", sum(map(len, parts))):
        probes = probe_sources(sources, Splits(*(part.labels for part in parts)), levels)
    results: dict[str, Any] = {"understanding": probes}
    with watch.stage("captions by likelihood", len(parts.test)):
        found, left_out = zero_shot(generator, parts.test, config.candidates, tuple(levels or ()), meaning)
    probes["left_out"] |= left_out
    results |= {"zero_shot": found} if found else {}
    sizes = {name: len(part) for name, part in parts._asdict().items()}
    said = protocol.of_understanding(sizes, config.model_dump(), bool(found))
    return {**results, "protocol": said, "stages": watch.stages}


def probed_features(generator: Understands, latents: Tensor) -> dict[str, Tensor]:
    """latents (N, K, D) -> name -> (L, N, F): hidden states after every block, a mean over tokens and the last token's;
    and as one layer each the latents themselves and their mean."""
    states = [generator.states(part).cpu() for part in latents.split(_BATCH)]
    return {
        "states_mean": torch.cat([part.mean(2) for part in states], 1),
        "states_last": torch.cat([part[:, :, -1] for part in states], 1),
        "latents": latents.flatten(1)[None],
        "latents_mean": latents.mean(1)[None],
    }


def zero_shot(
    generator: Understands,
    test: LabelledLatents,
    most: int,
    names: Sequence[str] = (),
    meaning: Callable[[str], str] = str,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Level -> which of its captions, at most `most`, the model finds likeliest for a picture, as `choice_accuracy` has
    it; and levels that are left out, with the reason."""
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    if not generator.writes:
        return found, {"captions": "the model has not learnt to write"}
    for level in range(test.level_mask.shape[1]):
        name = names[level] if level < len(names) else f"level {level + 1}"
        rows, captions = test.of_level(level)
        choice = choice_of(captions, meaning)
        if len(choice.candidates) > most:
            left_out[f"captions of {name}"] = f"{len(choice.candidates)} different ones, more than {most}"
        elif len(choice.candidates) < 2:
            left_out[f"captions of {name}"] = "nothing to choose from"
        elif generator.caption_levels and level >= generator.caption_levels:
            left_out[f"captions of {name}"] = f"the model knows {generator.caption_levels} levels"
        else:
            asked = level if generator.caption_levels else None
            scores = generator.score_captions(test.latents[rows], choice.candidates, level=asked).cpu()
            found[name] = choice_accuracy(scores, choice)
    return found, left_out
