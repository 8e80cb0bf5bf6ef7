"""Prefix truth: what pictures drawn from a prefix show, between other scenes' drawings and real pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ar_model.sampling import SampleConfig
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.prefix_truth import by_completion, prefix_truth
from tests.seqtok.evaluation.toy import LENGTH, SIZE, LosslessTokenizer, PerfectReader, held_out

SCENES = held_out(40)
READER = PerfectReader(SCENES)


class FromTheSecondToken:
    """Completes rightly from two tokens on; from one every second drawing is the wrong scene."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def complete(
        self,
        latents: Tensor,
        prompts: None,
        config: SampleConfig,
        *,
        seed: int,
        candidates: int,
        score: Callable[[Tensor], Tensor],
    ) -> Tensor:
        self.asked.append((latents.shape[1], seed))
        whole = LosslessTokenizer().encode(real_pictures(SCENES, SIZE).float() / 127.5 - 1)
        return whole.roll(1, 0) if latents.shape[1] == 1 and seed % 2 else whole


def test_each_prefix_is_judged_by_all_its_drawings():
    generator, tokenizer = FromTheSecondToken(), LosslessTokenizer()
    draw = by_completion(tokenizer, generator, SampleConfig())
    results = prefix_truth(tokenizer, draw, SCENES, READER, SIZE, seeds=4)
    assert generator.asked == [(k, seed) for k in (1, 2, LENGTH) for seed in range(4)]
    levels, attributes = results["prefix_truth"]["levels"], results["prefix_truth"]["attributes"]
    assert list(levels) == ["count", "shapes", "colors", "details"]
    for row in (*levels.values(), *attributes.values()):
        assert row["ceiling"] == row["value"]["2"] == row["value"][str(LENGTH)] == 1.0
    wrong = levels["details"]["chance"]["2"]
    assert wrong < 0.05
    assert levels["details"]["value"]["1"] == pytest.approx(0.5, abs=0.02)
    assert attributes["count"]["value"]["1"] > 0.5, "another scene may have as many shapes"
    low, high = levels["details"]["low"]["1"], levels["details"]["high"]["1"]
    assert 0.1 < high - low < 0.35, "an interval of 40 pictures, not of 160 drawings"
    decoded = results["decoded_truth"]["levels"]["details"]["value"]
    assert decoded[str(LENGTH)] == 1.0
    assert decoded["1"] < 0.1, "three quarters of the picture are missing"


class Guesses:
    """Draws another scene each time, the right one third."""

    def complete(self, latents: Tensor, prompts: None, config: SampleConfig, **how: Any) -> Tensor:
        whole = LosslessTokenizer().encode(real_pictures(SCENES, SIZE).float() / 127.5 - 1)
        drawn = torch.stack([whole.roll(2 - number, 0) for number in range(how["candidates"])])
        best = torch.stack([how["score"](one) for one in drawn]).argmax(0)
        return drawn[best, torch.arange(len(whole))]


def test_of_several_drawings_the_one_is_taken_that_begins_with_the_same_tokens():
    tokenizer, pictures = LosslessTokenizer(), real_pictures(SCENES, SIZE)
    latents = tokenizer.encode(pictures.float() / 127.5 - 1)
    few, enough = (by_completion(tokenizer, Guesses(), SampleConfig(), n)(latents[:, :2], 0) for n in (2, 4))
    assert torch.equal(enough, pictures)
    assert not torch.equal(few, pictures)


def test_the_whole_sequence_needs_no_drawing():
    """Completing K tokens gives them back; the picture is the decoder's."""
    tokenizer, generator = LosslessTokenizer(), FromTheSecondToken()
    pictures = real_pictures(SCENES, SIZE)
    latents = tokenizer.encode(pictures.float() / 127.5 - 1)
    assert torch.equal(by_completion(tokenizer, generator, SampleConfig())(latents, 0), pictures)


def test_what_no_scene_speaks_of_has_no_row():
    alone = [scene for scene in SCENES if len(scene.shapes) == 1][:3]
    results = prefix_truth(LosslessTokenizer(), lambda z, seed: real_pictures(alone, SIZE), alone, READER, SIZE, 1)
    assert "relation" not in results["prefix_truth"]["attributes"]
    assert "place" in results["prefix_truth"]["attributes"]
