"""Documents to learn from and be judged by: a drawn scene that is changed twice by words.

    [scene] <what changes> [the scene then] <what changes> [the scene then] <its caption>

and in every second one the first scene's caption before it.

A change gives one shape, the only one of its kind, another colour ("a red circle"), or the whole another background
("on a gray background"). The rest stays as it was: of it the words say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.scenes import (
    BACKGROUNDS,
    COLORS,
    UNSEEN_PAIRS,
    Scene,
    Split,
    make_scene,
    place_of,
    render,
    sample_generator,
)
from data_pipelines.sources.base import Bad, Facts, Pair

CHANGES = 2
_OTHER_STREAM = 1 << 40  # indices from here on: of what changes, not of the scene


@dataclass(frozen=True)
class Story:
    """A scene, and what becomes of it step by step."""

    scenes: tuple[Scene, ...]
    changes: tuple[str, ...]  # changes[i] leads from scene i to scene i + 1


def make_story(index: int, split: Split, seed: int = 0) -> Story:
    """The story number `index` of a split."""
    rng = sample_generator(seed, _OTHER_STREAM + index, split)
    scenes, changes = [make_scene(seed, index, split)], list[str]()
    for _ in range(CHANGES):
        scene, change = _changed(scenes[-1], rng)
        scenes.append(scene)
        changes.append(change)
    return Story(tuple(scenes), tuple(changes))


def describe(scene: Scene) -> str:
    """Its finest caption."""
    named = [f"a {shape.size} {shape.color} {shape.kind}" for shape in scene.shapes]
    if len(named) == 1:
        said = f"{named[0]} at the {place_of(scene.shapes[0])}"
    else:
        others = [f"{relation} {name}" for relation, name in zip(scene.relations, named[1:], strict=True)]
        said = f"{named[0]} " + " and ".join(others)
    return f"{said} on a {scene.background} background"


def _changed(scene: Scene, rng: np.random.Generator) -> tuple[Scene, str]:
    kinds = [shape.kind for shape in scene.shapes]
    single = [place for place, kind in enumerate(kinds) if kinds.count(kind) == 1]
    if not single or rng.integers(2):
        others = [name for name in BACKGROUNDS if name != scene.background]
        ground = others[int(rng.integers(len(others)))]
        return replace(scene, background=ground, background_rgb=BACKGROUNDS[ground]), f"on a {ground} background"
    place = single[int(rng.integers(len(single)))]
    shape = scene.shapes[place]
    colors = [c for c in COLORS if c != shape.color and (c, shape.kind) not in UNSEEN_PAIRS]
    color = colors[int(rng.integers(len(colors)))]
    shapes = list(scene.shapes)
    shapes[place] = replace(shape, color=color, rgb=COLORS[color])
    return replace(scene, shapes=tuple(shapes)), f"a {color} {shape.kind}"


@dataclass(frozen=True)
class StoriesSource:
    """The pictures of `count` stories of one split, those of a story one after the other."""

    split: Split
    count: int
    size: int
    kind: str = "stories"

    def __len__(self) -> int:
        return self.count * (CHANGES + 1)

    def names(self, start: int, stop: int) -> Iterator[str]:
        return (picture_key(self.split, *divmod(index, CHANGES + 1)) for index in range(start, stop))

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for index in range(start, stop):
            number, step = divmod(index, CHANGES + 1)
            scene = make_story(number, self.split).scenes[step]
            key = picture_key(self.split, number, step)
            yield Pair(image=render(scene, self.size), captions=(describe(scene),), source=key)

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "split": self.split, "count": self.count, "size": self.size}

    def facts(self) -> Facts:
        return Facts(level_names=("details",))


def picture_key(split: str, story: int, step: int) -> str:
    return f"{split}-{story:07d}-{step}"


def write_stories(folder: Path, counts: dict[Split, int], size: int) -> None:
    """Pictures as shards, and `documents-SPLIT.jsonl` of each split beside them."""
    sources: dict[str, Any] = {split: StoriesSource(split, count, size) for split, count in counts.items()}
    prepare(sources, folder, PrepareConfig(name="stories", size=size))
    for split, count in counts.items():
        write_documents(folder / f"documents-{split}.jsonl", split, count)


def write_documents(file: Path, split: Split, count: int) -> None:
    """Every second one begins with a caption: a picture at the beginning must be read as well."""
    with open(file, "w", encoding="utf-8") as stream:
        for number in range(count):
            story, key = make_story(number, split), partial(picture_key, split, number)
            parts: list[Any] = [describe(story.scenes[0])] if number % 2 else []
            parts.append({"image": key(0)})
            for step, change in enumerate(story.changes, 1):
                parts += [change, {"image": key(step)}]
            parts.append(describe(story.scenes[-1]))
            stream.write(json.dumps({"key": f"{split}-{number:07d}", "parts": parts}) + "\n")
