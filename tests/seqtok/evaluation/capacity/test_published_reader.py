"""A reader from elsewhere: what it finds is laid into cells, and the one of rapidocr reads our pages."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_pipelines.glyphs import load_typeface, make_page
from seqtok.evaluation.capacity.judgement import CapacityConfig, capacity
from seqtok.evaluation.capacity.published_reader import PublishedReader, published_reader
from seqtok.evaluation.capacity.reader import characters_of
from seqtok.evaluation.capacity.reader_training import draw_pages
from seqtok_core.foundation.errors import ConfigError


def box(row: float, column: float, side: float) -> list[list[float]]:
    """Around the middle of a place in cells."""
    y, x = (row + 0.5) * side, (column + 0.5) * side
    return [[x - 5, y - 4], [x + 5, y - 4], [x + 5, y + 4], [x - 5, y + 4]]


def test_a_character_is_of_the_cell_that_its_middle_lies_in() -> None:
    seen: list[np.ndarray[Any, Any]] = []

    def engine(pixels: np.ndarray[Any, Any], **asked: bool) -> SimpleNamespace:
        seen.append(pixels)
        assert asked["return_single_char_box"]
        side = pixels.shape[0] / 8
        line = [("B", 0.9, box(2, 5, side)), ("?", 0.9, box(0, 0, side)), ("AB", 0.9, box(1, 1, side))]
        return SimpleNamespace(word_results=(line, [("A", 0.5, box(7.3, 6.9, side)), ("A", 0.5, box(8.2, 0, side))]))

    page = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    page[0, 0] = 255  # red
    read = PublishedReader(engine, "AB", "").characters(page)
    assert read.shape == (1, 64)
    assert {place: int(read[0, place]) for place in range(64) if read[0, place] < 2} == {21: 1, 63: 0}
    (pixels,) = seen
    assert pixels.shape == (384, 384, 3)
    assert pixels[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("found", [None, (), (("", 1.0, None),)])
def test_nothing_found_is_an_empty_page(found: Any) -> None:
    """In whatever form it says so."""
    reader = PublishedReader(lambda *_, **__: SimpleNamespace(word_results=found), "AB", "")
    assert (reader.characters(torch.zeros(2, 3, 96, 96, dtype=torch.uint8)) == 2).all()


class Counts:
    """Reads what is true of pages, and keeps how many it was shown."""

    def __init__(self, truth: dict[bytes, torch.Tensor]) -> None:
        self._truth, self.shown = truth, 0

    def characters(self, pictures: torch.Tensor) -> torch.Tensor:
        self.shown += len(pictures)
        return torch.stack([self._truth[page.numpy().tobytes()] for page in pictures])


def test_it_reads_the_first_pages_of_every_way() -> None:
    typeface = load_typeface("ABCD", None, 12)
    truth = {}
    for count in (1, 8):
        pages = [make_page(0, index, "test", (count,), 4) for index in range(6)]
        pictures = draw_pages(pages, typeface)
        truth |= {p.numpy().tobytes(): t for p, t in zip(pictures, characters_of(pages, 4), strict=True)}
    first, second = Counts(truth), Counts(truth)
    config = CapacityConfig(glyphs=(1, 8), pictures=6, alphabet="ABCD", published=2)
    found = capacity({"same": lambda x: x, "turned": lambda x: x.roll(1, 0)}, first, typeface, config, second)
    assert (first.shown, second.shown) == (36, 12)
    assert found["published"]["same"]["8"]["value"] == 1.0
    assert found["published"]["same"]["8"]["pages"] == 2
    assert found["published"]["turned"]["8"]["value"] < 0.7
    assert capacity({"same": lambda x: x}, first, typeface, config)["published"] == {}


@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="rapidocr")
def test_the_one_of_rapidocr_reads_our_pages() -> None:
    typeface = load_typeface()
    letters = len(typeface.alphabet)
    pages = [make_page(0, index, "test", (32,), letters) for index in range(3)]
    truth = characters_of(pages, letters)
    reader = published_reader(typeface.alphabet)
    assert float((reader.characters(draw_pages(pages, typeface)) == truth).float().mean()) > 0.95
    assert len(reader.identity) == 16


@pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="rapidocr")
def test_the_one_of_rapidocr_finds_nothing_on_an_empty_page() -> None:
    blank = torch.full((1, 3, 96, 96), 255, dtype=torch.uint8)
    noise = torch.randint(0, 256, (1, 3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert (published_reader("AB").characters(torch.cat([blank, noise])) == 2).all()


def test_without_rapidocr_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    with pytest.raises(ConfigError, match="pip install rapidocr onnxruntime"):
        published_reader("AB")
