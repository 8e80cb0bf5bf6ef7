"""What `seqtok data inspect` says and draws: numbers agree with a plain count, sheets can be read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_pipelines.looking.contact_sheet import SheetRow, _font, contact_sheet, draw_sheet, wrap_text
from data_pipelines.looking.inspect import overview
from data_pipelines.reading.vocabulary import token_lengths, train_vocabulary
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.records import Fields
from seqtok.commands.data.app import app
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.toy import file_bytes, foreign_members, picture, scenes_folder, write_tar


def test_levels_are_measured_as_they_are(tmp_path: Path):
    scenes_folder(tmp_path / "d", train=40)
    words = train_vocabulary(tmp_path / "d", 400)
    part = overview(tmp_path / "d").splits[1]
    shards = open_shards(tmp_path / "d", "train")
    captions = [shards.record(n).captions for n in range(40)]
    for number, level in enumerate(part.levels):
        texts = [texts[number] for texts in captions]
        assert level.words.mean == pytest.approx(np.mean([len(text.split()) for text in texts]))
        assert level.characters.longest == max(len(text) for text in texts)
        assert level.tokens.longest == max(len(words.encode(text)) for text in texts)
        assert level.distinct == pytest.approx(len(set(texts)) / 40)
    everything = token_lengths(tmp_path / "d", words)
    assert max(level.tokens.longest for level in part.levels) == everything.longest
    longest = max((len(text), shards.key(n), k, text) for n, t in enumerate(captions) for k, text in enumerate(t))
    assert part.longest[0] == (longest[1], longest[2], longest[0], longest[3])
    counts = Counter(shards.classes["main_color"][shards.record(n).labels["main_color"]] for n in range(40))
    assert dict(part.labels["main_color"].common) == dict(counts)


def test_pictures_of_foreign_tars_are_measured_and_equal_ones_named(tmp_path: Path):
    members = foreign_members(0, 6, size=20)
    members[6] = ("k2.jpg", members[0][1])
    members[9] = ("k3.png", file_bytes(picture(3, (30, 10))))
    write_tar(tmp_path / "train-0.tar", members)
    part = overview(tmp_path, Fields(labels=("group",))).splits[0]
    assert part.pictures.sizes == (("20 x 20", 5), ("30 x 10", 1))
    assert part.pictures.formats == {"JPEG": 5, "PNG": 1}
    assert part.pictures.largest_bytes == max(len(data) for name, data in members if name[-4:] in (".jpg", ".png"))
    assert (part.pictures.equal, part.pictures.equal_keys) == (1, (("k0", "k2"),))
    assert part.labels["group"].common == (("g0", 2), ("g1", 2), ("g2", 1), ("g3", 1))
    assert part.record_fields == {"captions": 6, "group": 6, "year": 6}


def test_a_sample_of_the_split_is_looked_at_evenly(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 20))
    part = overview(tmp_path, samples=3).splits[0]
    assert (part.samples, part.looked_at) == (20, 3)
    assert {key for key, *_ in part.longest} <= {"k0", "k9", "k10", "k19"}
    assert overview(tmp_path, samples=0).splits[0].looked_at == 20


def test_the_commands_say_it_in_words_and_as_json(tmp_path: Path):
    scenes_folder(tmp_path / "d", train=10)
    words = CliRunner().invoke(app, ["inspect", str(tmp_path / "d"), "--contact-sheet", str(tmp_path / "s.png")])
    assert words.exit_code == 0, words.output
    for text in (
        "10 of 10 samples looked at",
        "longest captions:",
        "3 details",
        "label main_shape",
        "s.png: 22 pictures",
    ):
        assert text in words.stdout
    facts = json.loads(CliRunner().invoke(app, ["inspect", str(tmp_path / "d"), "--json"]).stdout)
    assert facts["splits"][1]["pictures"]["sizes"] == [["16 x 16", 10]]
    assert facts["made"]["source"]["config"]["size"] == 16


def test_a_sheet_shows_the_very_pixels(tmp_path: Path):
    """Small pictures are enlarged by whole numbers: every pixel is found again."""
    scenes_folder(tmp_path / "d", train=5, test=5, size=16)
    assert contact_sheet(tmp_path / "d", tmp_path / "s.png", count=4) == 4
    sheet = np.asarray(Image.open(tmp_path / "s.png"))
    shards = open_shards(tmp_path / "d", "train")
    from data_pipelines.pictures.decode import decode_pixels

    for column, index in enumerate((0, 4)):  # two of train, then two of test
        pixels = decode_pixels(shards.read_image(index)).repeat(12, 0).repeat(12, 1)
        left = 24 + column * (192 + 16)
        top = 24 + 17 + 16
        assert np.array_equal(sheet[top : top + 192, left : left + 192], pixels)


@pytest.mark.parametrize("text", ["", "short", "word " * 100, "x" * 500, "ends in Größe " * 9, "мама " * 60, "𝔘" * 90])
@pytest.mark.parametrize("lines", [1, 3])
def test_captions_are_wrapped_into_their_cell_and_nothing_is_cut_in_silence(text: str, lines: int):
    font = _font(12)
    found = wrap_text(text, font, 150, lines)
    assert len(found) <= lines
    assert all(font.getlength(line) <= 150 for line in found)
    said = "".join(found).replace(" ", "")
    whole = text.replace(" ", "")
    assert said == whole or (said.endswith("…") and whole.startswith(said[:-1]) and len(found) == lines)


def test_european_letters_are_drawn_not_boxed():
    """A type without a letter draws the same box for all of them."""
    box = bytes(_font(12).getmask("\U0010ffff"))
    for letter in "éïößñçžłøЖωا½—“":
        assert bytes(_font(12).getmask(letter)) != box, letter


def test_what_cannot_be_decoded_is_said_in_its_place():
    shown = [
        SheetRow("a", "train", ("x",), "damaged image"),
        SheetRow("b", "train", (), np.zeros((500, 40, 3), np.uint8)),
    ]
    sheet = np.asarray(draw_sheet(shown, "two"))
    assert (sheet == (170, 40, 30)).all(axis=2).any(), "red words"
    assert draw_sheet(shown, "two").size == (1280, sheet.shape[0])


def test_a_sheet_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        contact_sheet(tmp_path / "none", tmp_path / "s.png")
