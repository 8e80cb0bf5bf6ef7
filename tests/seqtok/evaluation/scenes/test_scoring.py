"""What "right" means, attribute by attribute."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_pipelines.scenes import Scene, Shape
from seqtok.evaluation.scenes.reader import Reading, Seen, true_reading
from seqtok.evaluation.scenes.scoring import relation_holds, score_reading
from tests.seqtok.evaluation.toy import held_out


def shape(kind: str, color: str, x: float, y: float, size: str = "small") -> Shape:
    return Shape(kind, color, size, x, y, 0.12, (0, 0, 0))


def scene(*shapes: Shape, relations: tuple[str, ...] = ()) -> Scene:
    return Scene(shapes, relations, "gray", (128, 128, 128), ("", "", "", ""))


PAIR = scene(shape("circle", "red", 0.2, 0.5), shape("square", "blue", 0.8, 0.5), relations=("left of",))
SAME_KIND = scene(shape("circle", "red", 0.2, 0.5), shape("circle", "blue", 0.8, 0.5), relations=("left of",))


def wrong(reading: Reading, asked: Scene, level: int = 3) -> set[str]:
    return {name for name, right in score_reading(reading, asked, level).items() if not right}


def changed(asked: Scene, slot: int, **values: object) -> Reading:
    seen = list(true_reading(asked).objects)
    seen[slot] = replace(seen[slot], **values)  # type: ignore[arg-type]
    return Reading(tuple(seen), asked.background)


def test_a_faultless_reading_is_right_in_everything() -> None:
    for asked in held_out(60):
        assert wrong(true_reading(asked), asked) == set()


def test_the_order_in_which_shapes_are_seen_does_not_count() -> None:
    for asked in held_out(60):
        reading = true_reading(asked)
        assert wrong(replace(reading, objects=reading.objects[::-1]), asked) == set()


def test_each_fault_is_charged_to_its_own_attributes() -> None:
    everywhere = {"everything"}
    assert wrong(changed(PAIR, 0, kind="cross"), PAIR) == everywhere | {"shape", "binding", "relation"}
    assert wrong(changed(PAIR, 0, color="cyan"), PAIR) == everywhere | {"color", "binding"}
    assert wrong(changed(PAIR, 0, size="large"), PAIR) == everywhere | {"size"}
    assert wrong(changed(PAIR, 0, x=0.95), PAIR) == everywhere | {"relation"}
    ground = replace(true_reading(PAIR), background="white")
    assert wrong(ground, PAIR) == everywhere | {"background"}


def test_swapped_colours_are_a_fault_of_binding_alone() -> None:
    swapped = Reading((Seen("circle", "blue", "small", 0.2, 0.5), Seen("square", "red", "small", 0.8, 0.5)), "gray")
    assert wrong(swapped, PAIR) == {"binding", "everything"}


def test_colour_tells_two_shapes_of_one_kind_apart() -> None:
    mirrored = Reading((Seen("circle", "red", "small", 0.8, 0.5), Seen("circle", "blue", "small", 0.2, 0.5)), "gray")
    assert wrong(mirrored, SAME_KIND) == {"relation", "everything"}


def test_one_shape_too_many_is_a_wrong_count_but_its_relation_may_hold() -> None:
    reading = true_reading(PAIR)
    extra = replace(reading, objects=(*reading.objects, Seen("cross", "cyan", "small", 0.5, 0.9)))
    assert "count" in wrong(extra, PAIR)
    assert "relation" not in wrong(extra, PAIR)


def test_only_what_the_caption_says_is_judged() -> None:
    reading = replace(changed(PAIR, 0, color="cyan", size="large"), background="white")
    assert wrong(reading, PAIR, level=1) == set()
    assert wrong(reading, PAIR, level=2) == {"color", "binding", "everything"}
    assert set(score_reading(reading, PAIR, level=0)) == {"count", "everything"}


def test_place_is_asked_of_single_shapes_and_relation_of_the_others() -> None:
    single = scene(shape("circle", "red", 0.3, 0.5))
    assert "relation" not in score_reading(true_reading(single), single)
    assert "place" not in score_reading(true_reading(PAIR), PAIR)
    assert wrong(changed(single, 0, x=0.35), single) == set()  # a pixel over the edge
    assert wrong(changed(single, 0, x=0.5), single) == {"place", "everything"}


@pytest.mark.parametrize(
    ("relation", "x", "y"),
    [("left of", 0.9, 0.6), ("right of", 0.1, 0.6), ("above", 0.6, 0.9), ("below", 0.4, 0.1)],
)
def test_exactly_one_relation_holds(relation: str, x: float, y: float) -> None:
    a, b = shape("circle", "red", 0.5, 0.5), shape("square", "blue", x, y)
    assert [r for r in ("left of", "right of", "above", "below") if relation_holds(r, a, b)] == [relation]
