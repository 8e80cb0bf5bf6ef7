"""The reader that was never trained: right on what the program draws, and it says no to what it does not draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipelines.samples import to_model
from data_pipelines.scenes import BACKGROUNDS, COLORS, make_scene
from seqtok.evaluation.scenes.fitted import NO_SHAPE, FittedReader, read_by_fit
from seqtok.evaluation.scenes.generation import judge, real_pictures
from seqtok.evaluation.scenes.reader import true_reading

SCENES = [make_scene(9, index, "test") for index in range(40)]


@pytest.mark.parametrize("size", [24, 32, 64])
def test_what_is_drawn_is_read(size: int):
    pixels = to_model(real_pictures(SCENES, size))
    readings = FittedReader().read(pixels)
    assert all(verdict["everything"] for verdict in judge(readings, SCENES))
    for reading, scene in zip(readings, SCENES, strict=True):
        for seen in reading.objects:
            assert min(np.hypot(seen.x - s.x, seen.y - s.y) for s in true_reading(scene).objects) < 1 / 32


def test_faint_noise_changes_nothing():
    pixels = to_model(real_pictures(SCENES, 32))
    noisy = pixels + 0.06 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    verdicts = judge(FittedReader().read(noisy.clamp(-1, 1)), SCENES)
    assert sum(verdict["everything"] for verdict in verdicts) >= 38


def blob(number: int) -> np.ndarray:
    """A closed bulging line, filled with a colour of the palette."""
    draw = np.random.default_rng(number)
    y, x = np.mgrid[0:32, 0:32]
    center_x, center_y = draw.uniform(9, 23, 2)
    angle, distance = np.arctan2(y - center_y, x - center_x), np.hypot(x - center_x, y - center_y)
    waves = [draw.normal(0, 0.22) * np.cos(n * angle + draw.uniform(0, 2 * np.pi)) for n in range(2, 6)]
    cover = np.clip(0.5 - (distance - draw.uniform(4, 6.5) * (1 + sum(waves))), 0, 1)[..., None]
    ground, color = (list(palette.values()) for palette in (BACKGROUNDS, COLORS))
    mixed = (1 - cover) * ground[number % 4] + cover * np.array(color[number % 6])
    return mixed.round().astype(np.uint8)


def test_blobs_have_no_name():
    readings = [read_by_fit(blob(number)) for number in range(60)]
    named = [seen.kind for reading in readings for seen in reading.objects if seen.kind != NO_SHAPE]
    assert len(named) <= 2
    assert all(reading.objects for reading in readings), "they are seen, but not recognised"


def test_an_empty_picture_shows_nothing():
    for name, color in BACKGROUNDS.items():
        reading = read_by_fit(np.full((32, 32, 3), color, dtype=np.uint8))
        assert (reading.objects, reading.background) == ((), name)


def test_a_colour_that_is_not_the_palettes_is_no_shape():
    picture = real_pictures(SCENES[:1], 32)[0].permute(1, 2, 0).numpy().copy()
    strange = np.full((32, 32, 3), BACKGROUNDS["white"], dtype=np.uint8)
    strange[8:20, 8:20] = (255, 120, 200)  # a pink square
    assert {seen.kind for seen in read_by_fit(strange).objects} == {NO_SHAPE}
    assert read_by_fit(picture).objects
