"""Pages of glyphs: the same everywhere, every character in a cell of its own and unlike every other one."""

from __future__ import annotations

import pickle
import string
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from data_pipelines.glyphs import (
    ALPHABET,
    CELLS,
    COUNTS,
    LEAST_CELL,
    PAGE_SIZE,
    SIDE,
    Typeface,
    draw_page,
    load_typeface,
    make_page,
    require_counts,
    require_page_size,
)
from data_pipelines.sources.drawn import GlyphsSource
from seqtok_core.foundation.errors import ConfigError

FIRST = ((1, 16, 33, 59), (12, 34, 32, 28))  # cells and characters of the first page of four


def test_a_page_is_a_function_of_seed_split_and_index():
    forward = [make_page(3, i, "train") for i in range(20)]
    backward = [make_page(3, i, "train") for i in reversed(range(20))][::-1]
    assert forward == backward
    assert forward != [make_page(4, i, "train") for i in range(20)]
    assert forward != [make_page(3, i, "val") for i in range(20)]
    typeface = load_typeface()
    assert np.array_equal(draw_page(forward[0], typeface), draw_page(backward[0], load_typeface()))


def test_first_pages_never_change():
    """A data set made today must be the one made tomorrow."""
    page = make_page(0, 0, counts=(4,))
    assert (page.cells, page.characters) == FIRST


@pytest.mark.parametrize("count", COUNTS)
def test_a_page_has_as_many_characters_as_asked_each_in_a_cell_of_its_own(count):
    for index in range(30):
        page = make_page(0, index, "test", counts=(count,))
        assert len(page.cells) == len(page.characters) == count
        assert list(page.cells) == sorted(set(page.cells))
        assert set(page.cells) <= set(range(CELLS))


def test_every_character_and_every_number_of_them_is_as_likely():
    pages = [make_page(1, index) for index in range(3000)]
    numbers = np.bincount([len(page.cells) for page in pages], minlength=CELLS + 1)[list(COUNTS)]
    assert numbers.sum() == len(pages)
    assert np.all(np.abs(numbers / len(pages) - 1 / len(COUNTS)) < 0.03)
    letters = np.bincount([letter for page in pages for letter in page.characters], minlength=len(ALPHABET))
    assert len(letters) == len(ALPHABET)
    assert np.all(np.abs(letters / letters.sum() * len(ALPHABET) - 1) < 0.12)


@pytest.mark.parametrize("cell", [LEAST_CELL, 21])
def test_a_cell_is_at_least_twelve_pixels_high_and_shows_its_own_character_alone(cell):
    typeface = load_typeface(cell=cell)
    assert typeface.ink.shape == (len(ALPHABET), cell, cell)
    page = make_page(0, 0, counts=(CELLS // 2,))
    picture = draw_page(page, typeface)
    assert picture.shape == (SIDE * cell, SIDE * cell, 3)
    assert cell >= 12
    for place in range(CELLS):
        row, column = divmod(place, SIDE)
        shown = picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        ink = typeface.ink[page.characters[page.cells.index(place)]] if place in page.cells else 0 * typeface.ink[0]
        assert np.array_equal(255 - shown, np.repeat(ink[..., None], 3, 2))


def test_no_ink_is_lost_at_the_border_of_a_cell():
    """Upper-case letters and digits of the font that Pillow brings all fit without being squeezed."""
    large = load_typeface(cell=48).ink.astype(float).sum((1, 2)) / 48**2
    small = load_typeface(cell=12).ink.astype(float).sum((1, 2)) / 12**2
    assert np.all(np.abs(small / large - 1) < 0.35)
    assert np.corrcoef(small, large)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        ("ABA", "'A' more than once"),
        ("A", "fewer than two"),
        ("", "fewer than two"),
        ("A B", "has no ' '"),
        ("AB中", "has no '中'"),
        ("Aa\u200b", "has no"),
        ("A\ud800", "has no"),
    ],
)
def test_an_alphabet_that_cannot_be_read_is_refused(alphabet: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_typeface(alphabet)


def dejavu(name: str) -> Path:
    """A font of many scripts, which matplotlib brings."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def test_characters_that_look_alike_are_refused():
    assert load_typeface("AΩЖ", dejavu("DejaVuSans")).ink.shape == (3, LEAST_CELL, LEAST_CELL)
    with pytest.raises(ConfigError, match=r"DejaVuSans\.ttf draws 'A' and '\u0391' alike"):
        load_typeface("AB\u0391", dejavu("DejaVuSans"))


def test_a_wide_character_is_squeezed_into_its_cell_not_cut():
    """W of a bold font is wider than high: its strokes still go from border to border, as dark on both sides."""
    ink = load_typeface("WI", dejavu("DejaVuSans-Bold")).ink.astype(float)[0]
    assert ink.sum(0).min() > 0
    assert np.abs(ink - ink[:, ::-1]).mean() < 0.35 * ink.mean()


@pytest.mark.parametrize("content", [None, b"", b"no font at all"])
def test_a_file_that_is_no_font_is_refused(tmp_path: Path, content: bytes | None):
    file = tmp_path / "letters.ttf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"letters\.ttf: cannot be read as a font"):
        load_typeface(font=file)
    with pytest.raises(ConfigError, match="cannot be read as a font"):
        load_typeface(font=tmp_path)


def test_what_is_drawn_is_the_typeface_whatever_its_file_is_called():
    assert load_typeface().sha256 == load_typeface().sha256
    others = [load_typeface(string.ascii_uppercase), load_typeface(ALPHABET[::-1]), load_typeface(cell=13)]
    assert len({load_typeface().sha256, *(other.sha256 for other in others)}) == 4
    assert Typeface("AB", others[0].ink).sha256 != Typeface("AC", others[0].ink).sha256, "other words for the same ink"


@pytest.mark.parametrize(("size", "cell"), [(96, 12), (104, 13), (256, 32), (95, None), (100, None), (32, None)])
def test_pages_are_of_whole_cells(size: int, cell: int | None):
    if cell is not None:
        assert require_page_size(size, "here:") == cell
        return
    with pytest.raises(ConfigError, match=f"here: pages of {size} pixels"):
        require_page_size(size, "here:")


def test_numbers_of_glyphs_are_those_that_a_page_holds():
    assert require_counts([8, 1, 8]) == (1, 8)
    for wrong in ([0], [65], [-1], []):
        with pytest.raises(ConfigError, match="from 1 to 64"):
            require_counts(wrong)


def test_a_source_of_pages_says_what_is_on_them():
    source = GlyphsSource("train", 40, load_typeface(), (1, 8), seed=5)
    pairs = list(source.pairs(0, 40))
    assert [pair.captions for pair in source.pairs(7, 9)] == [pair.captions for pair in pairs[7:9]]
    assert [pair.captions for pair in pickle.loads(pickle.dumps(source)).pairs(0, 40)] == [p.captions for p in pairs]
    for index, pair in enumerate(pairs):
        page = make_page(5, index, "train", (1, 8))
        words = pair.captions[1].split(" ")
        assert words == [ALPHABET[character] for character in page.characters]
        assert pair.captions[0] == ("1 glyph" if len(words) == 1 else "8 glyphs")
        assert source.facts().classes["count"][pair.labels["count"]] == pair.captions[0]
        assert pair.image.shape == (PAGE_SIZE, PAGE_SIZE, 3)
    other = GlyphsSource("train", 40, load_typeface("ABCD"), (1, 8), seed=5)
    assert source.identity() != other.identity()
