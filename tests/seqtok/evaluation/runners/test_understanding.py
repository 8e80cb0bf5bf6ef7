"""From a sequence model and pictures to `understanding` and `zero_shot`: what it reads, what it is asked, what is left
out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seqtok.evaluation.metrics.state_probes import Splits
from seqtok.evaluation.runners.tokenizer import SCENE_LEVELS
from seqtok.evaluation.runners.understanding import (
    LabelledLatents,
    UnderstandingConfig,
    evaluate_understanding,
    held_out_for_layers,
    probed_features,
    zero_shot,
)
from seqtok.evaluation.scenes.scoring import scene_meaning
from tests.ar_model.toy import random_latents, toy_generator
from tests.seqtok.evaluation.toy import held_out


def pictures(count: int, seed: int) -> LabelledLatents:
    """Latent 1 says the count, the others nothing."""
    scenes = held_out(count, seed)
    labels = {name: torch.tensor([scene.labels[name] for scene in scenes]) for name in ("count", "background")}
    latents = torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(seed))
    latents[:, 0] = 9.0 * torch.eye(3)[labels["count"]]
    captions = [list(scene.captions) for scene in scenes]
    return LabelledLatents(latents, labels, captions, torch.ones(count, 4, dtype=torch.bool))


PARTS = Splits(pictures(200, 1), pictures(60, 2), pictures(100, 3))


class Knowing:
    """Block 2 of 2 holds the latents, block 1 nothing; finds captions that name the right count likeliest."""

    writes, caption_levels = True, 4

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift
        self.asked: list[int | None] = []

    def states(self, latents: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(latents), latents])

    def score_captions(self, latents: Tensor, captions: Sequence[str], *, level: int | None) -> Tensor:
        self.asked.append(level)
        words = ("one", "two", "three")
        told = torch.tensor([next(i for i, word in enumerate(words) if word in caption) for caption in captions])
        own = (latents[:, 0].argmax(1) + self.shift) % 3
        return -(own[:, None] != told).float()


def evaluated(model: Knowing, parts: Splits[LabelledLatents] = PARTS, candidates: int = 10) -> dict:
    config = UnderstandingConfig(candidates=candidates)
    return evaluate_understanding(model, parts, config, levels=SCENE_LEVELS, meaning=scene_meaning)


def test_what_the_states_hold_is_found_beside_the_latents() -> None:
    results = evaluated(Knowing())
    found = results["understanding"]
    count, ground = found["labels"]["count"], found["labels"]["background"]
    assert count["states_mean"]["layer"] == 2
    assert count["states_mean"]["value"] > 0.95
    assert count["latents"]["value"] > 0.95
    assert count["states_last"]["value"] < 0.6, "the last token says nothing"
    assert ground["latents"]["low"] < 0.4
    assert list(found["levels"]) == ["count", "details"]
    assert found["by_layer"]["states_mean"]["count"]["2"] > 0.9 > found["by_layer"]["states_mean"]["count"]["1"]
    assert "200 pictures" in results["protocol"]["understanding"]
    assert "60 other pictures" in results["protocol"]["understanding"]


def test_shuffled_labels_give_chance() -> None:
    def shuffled(part: LabelledLatents) -> LabelledLatents:
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(4))
        return replace(part, labels={name: values[order] for name, values in part.labels.items()})

    row = evaluated(Knowing(), Splits(*map(shuffled, PARTS)))["understanding"]["labels"]["count"]
    for source in ("states_mean", "states_last", "latents", "latents_mean"):
        assert row[source]["low"] < row["chance"] + 0.05
        assert row[source]["value"] < row["chance"] + 0.15


def test_the_likeliest_caption_is_right_where_the_model_knows_and_else_not() -> None:
    model = Knowing()
    results = evaluated(model)
    assert list(results["zero_shot"]) == ["count"]
    assert results["zero_shot"]["count"]["value"] == 1.0
    assert results["zero_shot"]["count"]["candidates"] == 3
    assert model.asked == [0]
    assert "at most 10" in results["protocol"]["zero_shot"]
    assert evaluated(Knowing(shift=1))["zero_shot"]["count"]["value"] == 0.0


def test_levels_that_are_not_asked_are_named_with_the_reason() -> None:
    left_out = evaluated(Knowing())["understanding"]["left_out"]
    assert "more than 10" in left_out["captions of shapes"]
    assert set(left_out) == {f"captions of {level}" for level in ("shapes", "colors", "details")}
    alike = replace(PARTS.test, captions=[["one shape"]] * 100, level_mask=torch.ones(100, 1, dtype=torch.bool))
    assert zero_shot(Knowing(), alike, 10) == ({}, {"captions of level 1": "nothing to choose from"})
    coarse, mute = Knowing(), Knowing()
    coarse.caption_levels, mute.writes = 1, False
    assert zero_shot(coarse, PARTS.test, 10**6, meaning=lambda caption: caption[:3])[1].keys() >= {
        "captions of level 2"
    }
    assert zero_shot(mute, PARTS.test, 10) == ({}, {"captions": "the model has not learnt to write"})


def test_only_pictures_with_a_caption_of_the_level_are_asked() -> None:
    mask = PARTS.test.level_mask.clone()
    mask[::2, 0] = False
    found, _ = zero_shot(Knowing(), replace(PARTS.test, level_mask=mask), 10, meaning=scene_meaning)
    assert found["level 1"]["pictures"] == 50


def test_a_fifth_is_held_out_and_nobody_stands_on_both_sides() -> None:
    fit, val = held_out_for_layers(PARTS.fit)
    assert (len(fit), len(val)) == (160, 40)
    both = torch.cat([fit.latents, val.latents]).flatten(1)
    assert len(both.unique(dim=0)) == len(PARTS.fit)
    assert val.captions[0] == PARTS.fit.captions[4]
    assert torch.equal(val.labels["count"], PARTS.fit.labels["count"][4::5])


@pytest.mark.parametrize("kind", ["next_token", "full_image"])
def test_a_picture_has_the_same_features_in_any_company(kind: str) -> None:
    model, latents = toy_generator(sequence={"kind": kind}), random_latents(300)
    whole = probed_features(model, latents)
    assert whole["states_mean"].shape == whole["states_last"].shape == (2, 300, 32)
    few = probed_features(model, latents[290:])
    for name, features in few.items():
        torch.testing.assert_close(features, whole[name][:, 290:], rtol=1e-4, atol=1e-5)
