"""Captions of scenes: what the drawn scenes say of themselves is read back whole, and one false word is found."""

from __future__ import annotations

import pytest

from data_pipelines.scenes import COLORS, make_scene
from seqtok.evaluation.scenes.captions import attributes_right, caption_verdicts, read_caption, summarise_captions
from seqtok.evaluation.scenes.scoring import FINEST

SCENES = [make_scene(0, i, "test") for i in range(300)]


@pytest.mark.parametrize("level", range(FINEST + 1))
def test_every_caption_of_a_scene_is_true_of_it(level: int) -> None:
    for scene in SCENES:
        read = read_caption(scene.captions[level])
        assert read is not None, scene.captions[level]
        assert read[1] == level
        assert len(read[0].shapes) == len(scene.shapes)
        (verdict,) = caption_verdicts([scene.captions[level]], [scene], level)
        assert all(verdict.values()), (scene.captions[level], verdict)


def test_a_false_word_is_found_where_it_stands() -> None:
    scene = next(s for s in SCENES if len(s.shapes) == 2 and s.shapes[0].color != s.shapes[1].color)
    a, b = scene.shapes
    other = next(color for color in COLORS if color not in (a.color, b.color))
    caption = scene.captions[FINEST]
    (verdict,) = caption_verdicts([caption.replace(f"{a.color} {a.kind}", f"{other} {a.kind}")], [scene])
    assert {name for name, right in verdict.items() if not right} >= {"color", "binding", "everything"}
    assert verdict["count"]
    assert verdict["shape"]
    assert verdict["size"]
    assert verdict["background"]
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    wrong = caption.replace(scene.relations[0], turned[scene.relations[0]])
    if a.kind != b.kind:
        (verdict,) = caption_verdicts([wrong], [scene])
        assert not verdict["relation"]
        assert not verdict["everything"]
    (said,) = caption_verdicts([caption.rsplit(" on ", 1)[0] + " on pink"], [scene])
    assert not any(said.values()), "what cannot be read is wrong"


def test_a_relation_may_start_from_the_other_shape() -> None:
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    scene = next(s for s in SCENES if len(s.shapes) == 2)
    a, b = (f"a {s.size} {s.color} {s.kind}" for s in scene.shapes)
    caption = f"{b} {turned[scene.relations[0]]} {a} on {scene.background}"
    (verdict,) = caption_verdicts([caption], [scene])
    assert all(verdict.values())
    single = next(s for s in SCENES if len(s.shapes) == 1)
    (verdict,) = caption_verdicts([caption], [single])
    assert not verdict["place"]
    assert "relation" not in verdict


def test_a_coarser_caption_leaves_out_and_is_wrong_in_that() -> None:
    scene = next(s for s in SCENES if len(s.shapes) == 3)
    (verdict,) = caption_verdicts([scene.captions[2]], [scene], FINEST)
    assert verdict["count"]
    assert verdict["binding"]
    assert not verdict["relation"]
    assert not verdict["everything"]
    (verdict,) = caption_verdicts([scene.captions[FINEST]], [scene], 1)
    assert verdict == {"count": True, "shape": True, "everything": True}


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a",
        "a red",
        "circle",
        "a small red circle on white",
        "two a red circle",
        "a red circle and a square",
        "⁇ on white",
    ],
)
def test_what_the_grammar_does_not_know_is_not_read(caption: str) -> None:
    assert read_caption(caption) is None


def test_the_table_has_chance_and_ceiling() -> None:
    table = summarise_captions([scene.captions[FINEST] for scene in SCENES], SCENES)
    assert all(row["value"] == row["real"] == 1.0 for row in table.values())
    assert table["everything"]["chance"] < 0.01
    assert 0.25 < table["count"]["chance"] < 0.45
    assert attributes_right(table) == 1.0
    swapped = [s.captions[FINEST] for s in SCENES[1:] + SCENES[:1]]
    assert attributes_right(summarise_captions(swapped, SCENES)) < 0.5
