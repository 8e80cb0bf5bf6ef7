"""Resampling judged: a model that remembers, one that forgets, and where everything is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ar_model import SampleConfig
from data_pipelines.samples import to_model
from seq_tokenizer.prefixes import encode_all
from seqtok.evaluation.runners.resampling import ResamplingConfig, by_kept, evaluate_resampling
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.resampling import kept_tokens
from tests.ar_model.toy import LENGTH as TOKENS
from tests.ar_model.toy import random_latents, toy_generator
from tests.seqtok.evaluation.toy import LENGTH, SIZE, LosslessTokenizer, PerfectReader, held_out

SCENES = held_out(60)
KEPT = kept_tokens(LENGTH)
CONFIG = ResamplingConfig(seeds=2)


class Remembers:
    """Goes on as the picture does that begins so, told by the first of its tokens or by the prompt; else at random."""

    head_kind = "flow"

    def __init__(self) -> None:
        self.whole = LosslessTokenizer().encode(to_model(real_pictures(SCENES, SIZE)))
        self.named = {scene.captions[3]: z for scene, z in zip(SCENES, self.whole, strict=True)}

    def complete(self, latents: Tensor, prompts: Sequence[str] | None, config: SampleConfig, *, seed: int) -> Tensor:
        kept = latents.shape[1]
        if prompts is not None:
            found = torch.stack([self.named[prompt] for prompt in prompts])
        elif kept:
            found = self.whole[torch.cdist(latents.flatten(1), self.whole[:, :kept].flatten(1)).argmin(1)]
        else:
            found = self.whole[torch.randint(60, (60,), generator=torch.Generator().manual_seed(seed))]
        return torch.cat([latents, found[:, kept:]], 1)


def judged(model: Remembers) -> tuple[dict, Tensor]:
    return evaluate_resampling(LosslessTokenizer(), model, SCENES, PerfectReader(SCENES), SIZE, KEPT, CONFIG)


def test_where_all_is_kept_the_original_comes_back_and_where_nothing_is_chance() -> None:
    results, redrawn = judged(Remembers())
    found = results["resampling"]
    for way in ("model", "swapped", "noise"):
        own = found[way]
        assert set(own) == {"attributes", "labels", "psnr", "std"}
        assert all(points[str(LENGTH)] == 1.0 for points in own["attributes"].values())
        assert all(points[str(LENGTH)] == 1.0 for points in own["labels"].values())
        assert own["psnr"][str(LENGTH)] == 100.0
        assert own["std"][str(LENGTH)] == 0.0
        assert own["psnr"]["0"] < 15
        assert own["std"]["0"] > 30
    for way in ("model", "swapped"):
        for name, points in found[way]["attributes"].items():
            assert points["0"] == pytest.approx(found["chance"]["attributes"][name], abs=0.15)
        assert found[way]["attributes"]["everything"]["0"] < 0.05
    assert set(found["ceiling"]["attributes"].values()) == {1.0}
    assert redrawn.shape == (8, 2, len(KEPT), 3, SIZE, SIZE)
    assert torch.equal(redrawn[:, 0, -1], real_pictures(SCENES[:8], SIZE))


def test_a_model_that_knows_what_the_first_token_says_keeps_all_of_it() -> None:
    """By its first rows nearly every picture is known again; tails of others and noise keep nothing."""
    found = judged(Remembers())[0]["resampling"]
    assert found["model"]["attributes"]["everything"]["2"] > 0.9
    assert found["model"]["psnr"]["2"] > 90
    assert found["swapped"]["attributes"]["everything"]["2"] < 0.1
    assert found["noise"]["attributes"]["everything"]["2"] < 0.1


def test_forced_tokens_are_those_of_the_picture_and_the_rest_is_of_the_prompt() -> None:
    forced = judged(Remembers())[0]["forced"]
    assert list(forced["everything"]) == [str(m) for m in KEPT]
    assert min(forced["everything"].values()) > 0.95, "two scenes may have one caption"
    shifted = Remembers()
    shifted.named = {scene.captions[3]: z for scene, z in zip(SCENES, shifted.whole.roll(1, 0), strict=True)}
    wrong = judged(shifted)[0]["forced"]["everything"]
    assert wrong["0"] < 0.05
    assert wrong[str(LENGTH)] == 1.0


@pytest.mark.parametrize(
    "sequence",
    [{"kind": "next_token"}, {"kind": "noisy_copies"}, {"kind": "full_image"}, {"kind": "scales", "groups": [1, 2, 3]}],
)
def test_every_sequence_gives_all_kept_tokens_back_exactly(sequence: dict) -> None:
    model, latents = toy_generator(sequence=sequence), random_latents(5)
    for kept in kept_tokens(TOKENS, model.sequence.groups):
        redrawn = model.complete(latents[:, :kept], guidance=1.0, flow={"steps": 2}, seed=1)
        assert torch.equal(redrawn[:, :kept], latents[:, :kept])
        assert redrawn.shape == latents.shape
        assert torch.equal(redrawn, latents) == (kept == TOKENS)
    assert kept_tokens(TOKENS, model.sequence.groups)[1:3] == ((1, 3) if model.sequence.groups else (1, 2))


def test_points_are_turned_inside_out() -> None:
    points = {"0": {"a": {"x": 1}, "b": 2}, "4": {"a": {"x": 3}, "b": 4}}
    assert by_kept(points) == {"a": {"x": {"0": 1, "4": 3}}, "b": {"0": 2, "4": 4}}


def test_the_lossless_toy_is_lossless() -> None:
    pictures = real_pictures(SCENES[:3], SIZE)
    assert torch.equal(encode_all(LosslessTokenizer(), pictures), Remembers().whole[:3])
