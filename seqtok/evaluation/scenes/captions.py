"""Do captions say what pictures show? A caption of a drawn scene is read back by the grammar of `data_pipelines.scenes`
and compared with the scene itself: no network judges.

A caption may name the shapes in any order and start its relations from any of them: it is right where what it says
is true, whatever the scene's own caption says. What cannot be read by the grammar is wrong in everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from data_pipelines.scenes import BACKGROUNDS, COLORS, PLACES, RADII, RELATIONS, SHAPES, Scene, Shape
from seqtok.evaluation.scenes.generation import Verdict, summarise_verdicts
from seqtok.evaluation.scenes.reader import Reading, Seen
from seqtok.evaluation.scenes.scoring import ATTRIBUTES, FINEST, score_reading

_COUNTS = {"a": 1, "one": 1, "two": 2, "three": 3}
_SHIFTS = 40  # pairings of captions with other scenes that the chance level is averaged over


def _one_of(names: Sequence[str]) -> str:
    return "(" + "|".join(sorted(map(re.escape, names), key=len, reverse=True)) + ")"


_OPENING = re.compile(r"^(?:a picture of |there is )")
_GROUND = re.compile(rf" on (?:a )?{_one_of(tuple(BACKGROUNDS))}(?: background)?$")
_COUNT = re.compile(r"^(one|two|three) shapes?(?: on a plain background)?$")
_PLACE = re.compile(rf" at the {_one_of(PLACES)}$")
_NAMED = re.compile(rf"^a {_one_of(tuple(RADII))} {_one_of(tuple(COLORS))} {_one_of(SHAPES)}$")
_RELATED = re.compile(rf"(?: and)? {_one_of(RELATIONS)} ")
_LISTED = re.compile(rf"^(a|two|three) (?:{_one_of(tuple(COLORS))} )?{_one_of(SHAPES)}(?:e?s)?$")


def read_caption(caption: str) -> tuple[Scene, int] | None:
    """-> what it claims, as a scene whose unsaid parts are empty, and its level (0 coarse .. 3 fine); None where the
    grammar cannot read it."""
    said = " ".join(caption.lower().split())
    if ground := _GROUND.search(said):
        return _finest(said[: ground.start()], ground[1])
    said = _OPENING.sub("", said)
    if counted := _COUNT.match(said):
        return _claim([("", "", "")] * _COUNTS[counted[1]]), 0
    shapes: list[tuple[str, str, str]] = []
    for part in re.split(r", | and ", said):
        if not (named := _LISTED.match(part)):
            return None
        shapes += [("", named[2] or "", named[3])] * _COUNTS[named[1]]
    colored = {bool(color) for _, color, _ in shapes}
    return (_claim(shapes), 1 + colored.pop()) if len(colored) == 1 else None


def _finest(said: str, background: str) -> tuple[Scene, int] | None:
    place = _PLACE.search(said)
    parts = [said[: place.start()]] if place else _RELATED.split(said)
    named = [_NAMED.match(part) for part in parts[::2]]
    if not all(named) or (place is None and len(named) == 1):
        return None
    shapes = [(m[1], m[2], m[3]) for m in named if m]
    return _claim(shapes, tuple(parts[1::2]), background, place[1] if place else None), FINEST


def _claim(
    shapes: Sequence[tuple[str, str, str]],
    relations: tuple[str, ...] = (),
    background: str = "",
    place: str | None = None,
) -> Scene:
    """shapes: (size, colour, kind) each. The place is the middle of its ninth."""
    row, column = divmod(PLACES.index(place), 3) if place else (1, 1)
    at = ((column + 0.5) / 3, (row + 0.5) / 3)
    made = tuple(Shape(kind, color, size, *at, 0.0, (0, 0, 0)) for size, color, kind in shapes)
    return Scene(made, relations, background, (0, 0, 0), ("", "", "", ""))


def caption_verdicts(captions: Sequence[str], scenes: Sequence[Scene], level: int = FINEST) -> list[Verdict]:
    """Caption i about the picture of scene i, asked for at `level`: which attributes of that level it has right. One of
    a coarser level leaves things out, and is wrong in them; of a finer one it is right where all it says is true."""
    return [_judge(read_caption(caption), scene, level) for caption, scene in zip(captions, scenes, strict=True)]


def _judge(read: tuple[Scene, int] | None, scene: Scene, level: int) -> Verdict:
    single = len(scene.shapes) == 1
    asked = [name for name, (first, _) in ATTRIBUTES.items() if first <= level]
    asked = [name for name in asked if name != ("relation" if single else "place")]
    if read is None or read[1] < level:
        said = {} if read is None else score_reading(_shown(scene), read[0], read[1])
        return {name: said.get(name, False) and name != "everything" for name in asked}
    claim, own = read
    right = score_reading(_shown(scene), claim, own)
    return {name: right.get(name, False) for name in asked}


def _shown(scene: Scene) -> Reading:
    seen = tuple(Seen(s.kind, s.color, s.size, s.x, s.y) for s in scene.shapes)
    return Reading(seen, scene.background)


def summarise_captions(captions: Sequence[str], scenes: Sequence[Scene], level: int = FINEST) -> dict[str, Any]:
    """Attribute -> value with 95 % interval, chance (captions of other scenes), and the same for seen and unseen
    combinations; "attributes" is the mean over what is judged, and the ceiling what the scenes' own captions have."""
    verdicts = caption_verdicts(captions, scenes, level)
    count = len(scenes)
    own = [scene.captions[level] for scene in scenes]
    chance = [
        verdict
        for shift in range(1, min(_SHIFTS, count - 1) + 1)
        for verdict in caption_verdicts(own[shift:] + own[:shift], scenes, level)
    ]
    return summarise_verdicts(verdicts, chance, caption_verdicts(own, scenes, level), scenes)


def attributes_right(table: dict[str, Any]) -> float:
    """Share of single attributes that are right, of all that were asked, without "everything"."""
    rows = [row for name, row in table.items() if name != "everything"]
    asked = sum(row["prompts"] for row in rows)
    return sum(row["value"] * row["prompts"] for row in rows) / asked if asked else 0.0
