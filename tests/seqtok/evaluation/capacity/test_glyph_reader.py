"""The reader of glyphs: it looks at each cell alone, training learns and repeats, and (slow) it reads pages rightly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_pipelines.glyphs import ALPHABET, CELLS, COUNTS, PAGE_SIZE, SIDE, Page, load_typeface, make_page
from data_pipelines.samples import to_bytes, to_model
from seqtok.evaluation.capacity.judgement import CapacityConfig, capacity
from seqtok.evaluation.capacity.reader import GlyphReader, characters_of
from seqtok.evaluation.capacity.reader_training import (
    draw_pages,
    load_or_train_glyph_reader,
    reader_settings,
    reader_typefaces,
    train_glyph_reader,
)
from seqtok.evaluation.readers.spoiling import blur
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import folder_lock, write_json

TYPEFACE = load_typeface("ABC")
TYPEFACES = (TYPEFACE, load_typeface("ABC", cell=16))
TINY = reader_settings(TYPEFACES).model_copy(update={"images": 640, "batch": 16, "width": 8})


class FaultlessReader(GlyphReader):
    """Knows how each character is drawn; any other cell is empty to it."""

    def characters(self, pictures: Tensor, batch: int = 256) -> Tensor:
        side = pictures.shape[-1] // SIDE
        cells = pictures[:, 0].unfold(1, side, side).unfold(2, side, side).reshape(len(pictures), CELLS, side, side)
        alike = (cells[:, :, None] == torch.from_numpy(255 - TYPEFACE.ink)).all(-1).all(-1)  # (B, N, A)
        return torch.where(alike.any(-1), alike.int().argmax(-1), len(TYPEFACE.alphabet))


def test_pages_and_truth_are_of_one_mind() -> None:
    pages = [make_page(0, index, "test", (count,), 3) for index, count in enumerate(COUNTS)]
    pictures, truth = draw_pages(pages, TYPEFACE), characters_of(pages, 3)
    assert pictures.shape == (len(COUNTS), 3, PAGE_SIZE, PAGE_SIZE)
    assert torch.equal(FaultlessReader(3).characters(pictures), truth)
    assert [(row < 3).sum().item() for row in truth] == list(COUNTS)


def test_no_cell_is_read_from_another_one() -> None:
    """What stands in the last cell changes; what is said of cells that do not touch it must not."""
    torch.manual_seed(0)
    reader = GlyphReader(3, 8).eval()
    page = make_page(0, 0, counts=(CELLS,), alphabet_size=3)
    other = Page(page.cells, (*page.characters[:-1], (page.characters[-1] + 1) % 3))
    with torch.no_grad():
        one, two = reader(to_model(draw_pages([page, other], TYPEFACE)))
    changed = (one != two).any(-1).reshape(SIDE, SIDE)
    assert changed[-1, -1]
    assert not changed[:-2].any()
    assert not changed[:, :-2].any()


def test_any_size_is_read_as_pages_of_96_pixels() -> None:
    reader = GlyphReader(3, 8).eval()
    assert reader(torch.zeros(2, 3, 96, 96)).shape == reader(torch.zeros(2, 3, 200, 200)).shape == (2, CELLS, 4)


def test_training_learns_and_repeats_and_leaves_the_global_generator_alone() -> None:
    losses: list[float] = []
    before = torch.random.get_rng_state()
    first = train_glyph_reader(TYPEFACES, TINY, lambda images, loss: losses.append(loss))
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    again = train_glyph_reader(TYPEFACES, TINY)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_kept_reader_is_used_again_and_another_one_replaced(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"images": 16})
    trained: list[int] = []
    first = load_or_train_glyph_reader(tmp_path, TYPEFACES, config, lambda images, _: trained.append(images))
    with folder_lock(tmp_path):  # two judges may read one folder
        again = load_or_train_glyph_reader(tmp_path, TYPEFACES, config, lambda images, _: trained.append(images))
    assert trained == [16]
    pictures = draw_pages([make_page(0, 0, "test", alphabet_size=3)], TYPEFACE)
    assert torch.equal(first.characters(pictures), again.characters(pictures))
    other = (load_typeface("ABD"), load_typeface("ABD", cell=16))
    named = reader_settings(other).model_copy(update={"images": 16, "batch": 16, "width": 8})
    load_or_train_glyph_reader(tmp_path, other, named, lambda images, _: trained.append(images))
    assert trained == [16, 16]
    with pytest.raises(ConfigError, match="name others"):
        train_glyph_reader(other, config)
    write_json(tmp_path / "config.json", {"kind": "seqtok reader"})
    with pytest.raises(DataError, match="not a seqtok glyph reader but a seqtok reader"):
        load_or_train_glyph_reader(tmp_path, other, named)


def test_what_a_code_keeps_is_what_is_read() -> None:
    """A way that loses nothing, one that loses everything, one that keeps the upper half of every page."""
    upper = torch.arange(PAGE_SIZE)[:, None] < PAGE_SIZE // 2
    ways = {
        "all": lambda x: x,
        "none": lambda x: torch.full_like(x, 255),
        "half": lambda x: torch.where(upper, x, 255),
    }
    asked = CapacityConfig(glyphs=(1, CELLS), pictures=30, alphabet="ABC")
    found = capacity(ways, FaultlessReader(3), TYPEFACE, asked)
    for count in ("1", "64"):
        rows = {name: found["ways"][name][count] for name in ways}
        assert all(row["ceiling"] == 1.0 and row["chance"] == 1 / 3 and row["pages"] == 30 for row in rows.values())
        assert (rows["all"]["value"], rows["none"]["value"]) == (1.0, 0.0)
    assert found["ways"]["half"]["64"]["value"] == 0.5
    assert found["ways"]["all"]["64"]["bits"] == pytest.approx(found["ways"]["all"]["64"]["bits_drawn"])
    assert all(stage["images"] == 30 for stage in found["stages"].values())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_reader_reads_held_out_pages() -> None:
    """At least 99 % of the characters of real pages of usual sizes, plain and a little blurred."""
    typefaces = reader_typefaces(ALPHABET, None)
    reader = train_glyph_reader(typefaces, reader_settings(typefaces))
    for cell in (12, 16, 20, 32, 64):
        for count in (1, 8, CELLS):
            pages = [make_page(1, index, "test", (count,)) for index in range(50)]
            pictures, truth = draw_pages(pages, load_typeface(cell=cell)), characters_of(pages, len(ALPHABET))
            for sigma in (0.0, cell / 12):
                read = reader.characters(to_bytes(blur(to_model(pictures), sigma)))
                assert float((read == truth).double().mean()) >= 0.99, (cell, count, sigma)
                assert float((read == truth)[truth < len(ALPHABET)].double().mean()) >= 0.99, (cell, count, sigma)
