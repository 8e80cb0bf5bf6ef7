"""Scores of generated pictures: a perfect generator, chance, the split into seen and unseen, prefix
lengths."""

from __future__ import annotations

import math

import pytest
import torch

from seqtok.evaluation.runners.generation import (
    GenerationConfig,
    evaluate_generation,
    judge_pictures,
    pictures_for_report,
)
from seqtok.evaluation.scenes.generation import chance_verdicts, judge, real_pictures, share, summarise_verdicts, wilson
from seqtok.evaluation.scenes.reader import true_reading
from seqtok.evaluation.stopwatch import Stopwatch
from tests.seqtok.evaluation.toy import LENGTH, SIZE, LosslessTokenizer, PerfectGenerator, PerfectReader, held_out

SCENES = held_out(60)
READER = PerfectReader(SCENES)


def test_a_perfect_generator_is_right_and_chance_is_far_below() -> None:
    results, generated = evaluate_generation(
        LosslessTokenizer(), PerfectGenerator(SCENES), SCENES, READER, GenerationConfig()
    )
    for row in results["reader"].values():
        assert row["value"] == row["real"] == row["seen"] == row["unseen"] == 1.0
        assert row["chance"] < 0.5
    assert results["reader"]["everything"]["chance"] < 0.02
    assert set(results["reader_rebuilt"].values()) == {1.0}, "the tokenizer loses nothing"
    assert results["by_shapes"]["3"] == {"guided": 1.0, "unguided": 1.0, "rebuilt": 1.0}
    again = results["second_reader"]["everything"]
    assert again["guided"] == again["unguided"] == again["rebuilt"] == again["real"] > 0.8
    assert results["stages"]["generate"]["images_per_second"] > 0
    assert generated.pictures.shape == (60, 3, 3, SIZE, SIZE)
    assert generated.unseen == [scene.unseen for scene in SCENES]


def test_variety_is_that_of_two_drawings_of_each_prompt() -> None:
    """The perfect generator draws a prompt the same way each time."""
    results, _ = evaluate_generation(LosslessTokenizer(), PerfectGenerator(SCENES), SCENES, READER, GenerationConfig())
    for row in results["variety"].values():
        assert row["value"] == 0.0
        assert row["real"] > 0.05
        assert row["shapes"] > 60


def test_prefixes_are_judged_each_by_its_own_picture() -> None:
    results, _ = evaluate_generation(LosslessTokenizer(), PerfectGenerator(SCENES), SCENES, READER, GenerationConfig())
    curve = results["reader_by_prefix"]["everything"]
    assert list(curve) == ["1", "2", str(LENGTH)]
    assert curve[str(LENGTH)] == 1.0
    assert curve["1"] < 0.1  # a picture with three quarters missing is none that the reader knows


def test_pictures_of_other_scenes_score_the_chance_level() -> None:
    pictures = real_pictures(SCENES, SIZE).roll(1, 0)
    results, verdicts = judge_pictures({LENGTH: pictures}, SCENES, READER, 3, Stopwatch())
    for name, row in results["reader"].items():
        assert row["value"] == pytest.approx(row["chance"], abs=0.2), name
    assert len(verdicts) == len(SCENES)


def test_seen_and_unseen_are_split_by_the_scene() -> None:
    """A generator that fails just on unseen combinations."""
    readings = [true_reading(scene) for scene in SCENES]
    empty = [reading.__class__((), "none") for reading in readings]
    mixed = [e if scene.unseen else r for r, e, scene in zip(readings, empty, SCENES, strict=True)]
    verdicts = judge(mixed, SCENES)
    table = summarise_verdicts(verdicts, chance_verdicts(readings, SCENES), judge(readings, SCENES), SCENES)
    for row in table.values():
        assert row["seen"] == 1.0
        assert row["unseen"] == 0.0
        assert row["prompts_seen"] + row["prompts_unseen"] == row["prompts"]
        assert row["value"] == pytest.approx(row["prompts_seen"] / row["prompts"])
        assert row["low"] < row["value"] < row["high"]


def test_chance_never_pairs_a_prompt_with_its_own_picture() -> None:
    readings = [true_reading(scene) for scene in SCENES[:3]]
    assert len(chance_verdicts(readings, SCENES[:3])) == 2 * 3
    assert share(chance_verdicts(readings, SCENES[:3]), "everything") == 0.0
    assert chance_verdicts(readings[:1], SCENES[:1]) == []


def test_a_share_of_nothing_is_none() -> None:
    singles = [scene for scene in SCENES if len(scene.shapes) == 1]
    verdicts = judge([true_reading(scene) for scene in singles], singles)
    assert share(verdicts, "relation") is None
    assert "relation" not in summarise_verdicts(verdicts, verdicts, verdicts, singles)


def test_wilson_solves_its_equation() -> None:
    """Both ends are the probabilities at which the seen share is 1.96 standard errors away."""
    for value, count in ((0.8, 50), (1.0, 200), (0.0, 10)):
        for end in wilson(value, count):
            if 0.0 < end < 1.0:
                assert abs(value - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / count), rel=1e-6)


def test_pictures_of_the_report_end_with_the_original() -> None:
    images = real_pictures(SCENES[:3], SIZE)
    shown = pictures_for_report(LosslessTokenizer(), images)
    assert list(shown.prefixes) == [1, 2, LENGTH]
    assert torch.equal(shown.rebuilt[:, -1], images)
