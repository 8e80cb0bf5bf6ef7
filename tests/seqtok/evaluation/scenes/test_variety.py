"""How much drawings of one caption differ, held against the drawing program itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_pipelines.scenes import Scene, make_scene, moved
from seqtok.evaluation.scenes.reader import Reading, true_reading
from seqtok.evaluation.scenes.scoring import score_reading
from seqtok.evaluation.scenes.variety import position_spread

SCENES = [make_scene(3, index, "test") for index in range(200)]


def read(scenes: list[Scene]) -> list[Reading]:
    return [true_reading(scene) for scene in scenes]


def spread(first: list[Reading], second: list[Reading]) -> tuple[float, float]:
    """Of drawings, and of real pictures."""
    found = position_spread(first, second, SCENES)
    assert found["shapes"] is not None
    assert found["shapes"] > 250
    assert found["value"] is not None
    assert found["real"] is not None
    return found["value"], found["real"]


def redrawn(seed: int) -> list[Reading]:
    return read([moved(scene, 1000 * seed + number) for number, scene in enumerate(SCENES)])


def halfway(a: Reading, b: Reading) -> Reading:
    pairs = zip(a.objects, b.objects, strict=True)
    return replace(a, objects=tuple(replace(s, x=(s.x + t.x) / 2, y=(s.y + t.y) / 2) for s, t in pairs))


def test_a_moved_scene_is_another_picture_of_the_same_caption() -> None:
    for number, scene in enumerate(SCENES[:40]):
        other = moved(scene, number)
        assert other.captions == scene.captions
        assert score_reading(true_reading(other), scene)["everything"]
        assert {(s.x, s.y) for s in other.shapes}.isdisjoint((s.x, s.y) for s in scene.shapes)
        assert moved(scene, number) == other


def test_drawings_by_the_true_law_spread_as_real_pictures_do() -> None:
    drawn, real = spread(redrawn(1), redrawn(2))
    assert drawn == pytest.approx(real, rel=0.12)


def test_drawings_that_are_all_alike_do_not_spread() -> None:
    drawn, real = spread(read(SCENES), read(SCENES))
    assert drawn == 0.0
    assert real > 0.05


@pytest.mark.slow
def test_drawings_that_half_follow_the_law_spread_half() -> None:
    """Every shape of the second drawing stands half-way between the first's and a third one's place."""
    first, third = redrawn(1), redrawn(2)
    between = [halfway(a, b) for a, b in zip(first, third, strict=True)]
    assert spread(first, between)[0] == pytest.approx(spread(first, third)[0] / 2, rel=0.1)


def test_wrong_drawings_and_shapes_alike_are_left_out() -> None:
    wrong = [replace(reading, background="nowhere") for reading in read(SCENES)]
    found = position_spread(wrong, read(SCENES), SCENES)
    assert found["shapes"] == 0
    assert found["value"] is None
    twice = replace(SCENES[0], shapes=(SCENES[0].shapes[0],) * 2, relations=("left of",))
    assert position_spread(read([twice]), read([twice]), [twice])["shapes"] == 0
