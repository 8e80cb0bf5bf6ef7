"""Recall, its chance level, and captions that say the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seqtok.evaluation.metrics.retrieval import gallery, recall, recall_chance
from seqtok.evaluation.scenes.scoring import scene_meaning
from tests.seqtok.evaluation.toy import held_out

KEYS = ("image_to_caption_r1", "image_to_caption_r5", "caption_to_image_r1", "caption_to_image_r5")


def test_perfect_and_reversed_embeddings() -> None:
    texts = torch.eye(8)
    images = texts.repeat_interleave(2, 0)
    match = torch.eye(8).bool().repeat_interleave(2, 0)
    assert recall(images, texts, match) == dict.fromkeys(KEYS, 1.0)
    assert recall(images, -texts, match)["image_to_caption_r1"] == 0.0


def test_the_chance_level_is_what_random_embeddings_reach() -> None:
    generator = torch.Generator().manual_seed(0)
    owner = torch.randint(0, 12, (60,), generator=generator)
    match = owner[:, None] % 4 == torch.arange(12)[None] % 4  # three captions say the same
    found = dict.fromkeys(KEYS, 0.0)
    rounds = 300
    for _ in range(rounds):
        images = F.normalize(torch.randn(60, 64, generator=generator), dim=1)
        texts = F.normalize(torch.randn(12, 64, generator=generator), dim=1)
        for key, value in recall(images, texts, match).items():
            found[key] += value / rounds
    assert found == pytest.approx(recall_chance(match), abs=0.02)


def test_candidates_are_different_captions_and_equal_ones_are_right() -> None:
    kept, match = gallery(["a", "b", "a", "c"])
    assert kept == [0, 1, 3]
    assert match.tolist() == [
        [True, False, False],
        [False, True, False],
        [True, False, False],
        [False, False, True],
    ]


def test_other_words_for_the_same_scene_are_right() -> None:
    kept, match = gallery(["two shapes", "a picture of two shapes", "three shapes"], scene_meaning)
    assert kept == [0, 1, 2]
    assert match[0].tolist() == [True, True, False]


def test_meaning_of_scene_captions() -> None:
    assert scene_meaning("one shape") == scene_meaning("one shape on a plain background") == "one"
    assert scene_meaning("there is a circle, a cross and a square") == scene_meaning("a square, a circle and a cross")
    assert scene_meaning("a red circle and a square") != scene_meaning("a circle and a red square")
    details = "a small red circle left of a large blue cross on {}"
    assert scene_meaning(details.format("gray")) == scene_meaning(details.format("a gray background"))
    assert scene_meaning(details.format("gray")) != scene_meaning(details.format("white"))


def test_meaning_agrees_with_the_scene_itself() -> None:
    """Two scenes' captions mean the same just when the scenes agree in what that level speaks of."""
    scenes = held_out(300)
    said = [
        lambda s: len(s.shapes),
        lambda s: sorted(x.kind for x in s.shapes),
        lambda s: sorted((x.color, x.kind) for x in s.shapes),
    ]
    for level, content in enumerate(said):
        groups: dict[str, list[object]] = {}
        for scene in scenes:
            groups.setdefault(scene_meaning(scene.captions[level]), []).append(content(scene))
        assert all(found == [found[0]] * len(found) for found in groups.values())
        assert len(groups) == len({str(content(scene)) for scene in scenes})
