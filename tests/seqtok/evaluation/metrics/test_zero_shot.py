"""The likeliest of given captions: one wording of each meaning, right where it says the same."""

from __future__ import annotations

import torch

from seqtok.evaluation.metrics.zero_shot import choice_accuracy, choice_of
from seqtok.evaluation.scenes.scoring import scene_meaning

CAPTIONS = [
    "two shapes",
    "a picture of two shapes",
    "one shape",
    "two shapes",
    "three shapes",
    "a picture of one shape",
]


def test_captions_that_say_the_same_are_one_candidate() -> None:
    choice = choice_of(CAPTIONS, scene_meaning)
    assert sorted(choice.candidates) == ["one shape", "three shapes", "two shapes"]
    said = [scene_meaning(choice.candidates[answer]) for answer in choice.answer.tolist()]
    assert said == [scene_meaning(caption) for caption in CAPTIONS]
    assert len(choice_of(CAPTIONS).candidates) == 5


def test_right_answers_score_one_and_the_order_of_pictures_does_not_matter() -> None:
    choice = choice_of(CAPTIONS, scene_meaning)
    scores = torch.nn.functional.one_hot(choice.answer, 3).float()
    row = choice_accuracy(scores, choice)
    assert row == {"value": 1.0, "low": 1.0, "high": 1.0, "chance": 0.5, "candidates": 3, "pictures": 6}


def test_scores_that_know_nothing_give_chance() -> None:
    choice = choice_of([f"class {i % 5}" for i in range(500)])
    scores = torch.rand(500, 5, generator=torch.Generator().manual_seed(0))
    row = choice_accuracy(scores, choice)
    assert row["low"] < row["chance"] == 0.2 < row["high"]
