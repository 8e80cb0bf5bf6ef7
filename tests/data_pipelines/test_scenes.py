"""Drawn scenes: the same everywhere, captions that are true, combinations that training never sees."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from data_pipelines import scenes
from data_pipelines.scenes import (
    BACKGROUNDS,
    COLORS,
    LABELS,
    LEVEL_LABELS,
    SHAPES,
    UNSEEN_PAIRS,
    UNSEEN_RELATIONS,
    Scene,
    make_scene,
    render,
)

FIRST_CAPTION = "a small yellow triangle at the left on a beige background"
FIRST_SUM = 162334  # of all pixel values at 16 x 16
_WORDS = {"one": 1, "two": 2, "three": 3}
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def some(split: str, count: int = 300, seed: int = 0) -> list[Scene]:
    return [make_scene(seed, index, split) for index in range(count)]


def test_a_scene_is_a_function_of_seed_split_and_index():
    forward = [make_scene(3, i, "train") for i in range(20)]
    backward = [make_scene(3, i, "train") for i in reversed(range(20))][::-1]
    assert forward == backward
    assert forward != [make_scene(4, i, "train") for i in range(20)]
    assert forward != [make_scene(3, i, "val") for i in range(20)]
    assert np.array_equal(render(forward[0], 32), render(backward[0], 32))


def test_first_scenes_never_change():
    """A data set made today must be the one made tomorrow."""
    assert make_scene(0, 0, "train").captions[-1] == FIRST_CAPTION
    assert int(render(make_scene(0, 0, "train"), 16).astype(np.int64).sum()) == FIRST_SUM


def pixel_at(image: np.ndarray, x: float, y: float) -> np.ndarray:
    size = image.shape[0]
    return image[int(y * size), int(x * size)].astype(int)


def nearest(rgb: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: np.abs(rgb - np.array(palette[name])).sum())


def named(thing: str, things: list[str]) -> str:
    """ "a red cross", or "two red crosses" where there are two."""
    count = things.count(thing)
    plural = thing + ("es" if thing.endswith("ss") else "s")
    return f"a {thing}" if count == 1 else f"{LABELS['count'][count - 1]} {plural}"


def test_pictures_that_show_the_same_shapes_share_their_coarse_captions():
    """Apart from the opening words, the order of drawing does not change what is said."""
    seen: dict[tuple[str, ...], set[str]] = {}
    for scene in some("train", 600):
        text = scene.captions[1].removeprefix("a picture of ").removeprefix("there is ")
        seen.setdefault(tuple(sorted(s.kind for s in scene.shapes)), set()).add(text)
    assert all(len(texts) == 1 for texts in seen.values())


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_are_true_of_the_pixels(split):
    """Colours and background are read back from the picture, positions from the shapes' centres."""
    for scene in some(split, 150):
        image = render(scene, 96)
        count, kinds, colors, detail = scene.captions
        assert next(n for word, n in _WORDS.items() if word in count.split()) == len(scene.shapes)
        assert nearest(image[0, 0].astype(int), BACKGROUNDS) == scene.background
        assert f"on {scene.background}" in detail or f"on a {scene.background} background" in detail
        for shape in scene.shapes:
            assert nearest(pixel_at(image, shape.x, shape.y), COLORS) == shape.color
            assert named(shape.kind, [s.kind for s in scene.shapes]) in kinds
            assert named(f"{shape.color} {shape.kind}", [f"{s.color} {s.kind}" for s in scene.shapes]) in colors
            assert f"a {shape.size} {shape.color} {shape.kind}" in detail
        first = scene.shapes[0]
        for other, relation in zip(scene.shapes[1:], scene.relations, strict=True):
            assert f"{relation} a {other.size} {other.color} {other.kind}" in detail
            offset = {"left of": other.x - first.x, "right of": first.x - other.x}
            offset |= {"above": other.y - first.y, "below": first.y - other.y}
            assert offset[relation] > 0
        if len(scene.shapes) == 1:
            assert scenes.place_of(first) in detail


def test_labels_agree_with_the_scene():
    for scene in some("train") + some("test"):
        labels = {name: LABELS[name][value] for name, value in scene.labels.items()}
        assert set(labels) == set(LABELS)
        assert _WORDS[labels["count"]] == len(scene.shapes)
        assert set(labels["shapes"].split("+")) == {s.kind for s in scene.shapes}
        assert set(labels["colors"].split("+")) == {s.color for s in scene.shapes}
        first = min(scene.shapes, key=lambda s: (SHAPES.index(s.kind), list(COLORS).index(s.color)))
        assert (labels["main_shape"], labels["main_color"]) == (first.kind, first.color)
        if len(scene.shapes) == 2 and len({(s.kind, s.color) for s in scene.shapes}) == 2:
            named_first = scene.shapes[0] is first
            said = scene.relations[0]
            assert labels["relation"] == (said if named_first else _OPPOSITE[said])
        assert (labels["place"] == "several") == (len(scene.shapes) > 1)
        assert labels["unseen"] == ("yes" if scene.unseen else "no")


def test_labels_are_of_the_picture_whichever_shape_a_caption_names_first():
    for scene in some("train"):
        own = {name: value for name, value in scene.labels.items() if name != "unseen"}  # of the named relations
        for shapes in permutations(scene.shapes):
            assert own.items() <= replace(scene, shapes=shapes).labels.items()


def holds_unseen(scene: Scene) -> bool:
    """Written anew from the two tables, as a second opinion."""
    first = scene.shapes[0].kind
    named = {(first, r, s.kind) for s, r in zip(scene.shapes[1:], scene.relations, strict=True)}
    named |= {(kind, _OPPOSITE[r], head) for head, r, kind in named}
    return bool(named & UNSEEN_RELATIONS) or any((s.color, s.kind) in UNSEEN_PAIRS for s in scene.shapes)


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_never_sees_the_held_out_combinations(split):
    assert not any(holds_unseen(scene) for scene in some(split, 1500))


def test_every_second_test_scene_is_unseen():
    assert [holds_unseen(scene) for scene in some("test", 200)] == [index % 2 == 1 for index in range(200)]


def test_every_word_is_seen_in_training():
    seen = {(s.kind, s.color) for scene in some("train", 600) for s in scene.shapes}
    assert {kind for kind, _ in seen} == set(SHAPES)
    assert {color for _, color in seen} == set(COLORS)
    words = {label: {scene.labels[label] for scene in some("train", 600)} for label in ("relation", "place")}
    assert all(len(values) == len(LABELS[label]) for label, values in words.items())


@pytest.mark.parametrize("size", [16, 32, 45])
def test_a_picture_looks_the_same_at_any_size(size):
    """Mean colour is nearly that of a large rendering: edges are anti-aliased, nothing is clipped."""
    for scene in some("train", 6):
        small, large = render(scene, size), render(scene, 128)
        assert small.shape == (size, size, 3)
        assert small.dtype == np.uint8
        assert np.abs(small.mean((0, 1)) - large.mean((0, 1))).max() < 3.0
        values = {tuple(v) for v in large.reshape(-1, 3).tolist()}
        assert len(values) > 1 + len(scene.shapes), "edges hold colours between shape and background"


def test_levels_name_labels_that_exist():
    assert all(label in LABELS for level in LEVEL_LABELS for label in level)
