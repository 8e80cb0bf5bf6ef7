"""The report: complete in itself, nothing from data reaches it unescaped, and results.json holds the
numbers."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from seqtok.evaluation.report.charts import Curve, chart, spread
from seqtok.evaluation.report.kept_pictures import ReportPictures, kept_pictures
from seqtok.evaluation.report.report import merge, read_results, render_report, write_report
from seqtok.evaluation.report.report_parts import generated_rows
from seqtok.evaluation.report.report_words import duration_text
from seqtok.evaluation.scenes.generation import chance_verdicts, judge, real_pictures, summarise_verdicts
from seqtok.evaluation.scenes.reader import true_reading
from seqtok.grids import data_uri, grid, strip
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import write_json
from tests.seqtok.evaluation.toy import held_out

EVIL = '<script>alert("x")</script> & "quoted" \u202e'
SCENES = held_out(8)
PICTURES = real_pictures(SCENES, 16)
VERDICTS = judge([true_reading(s) for s in SCENES], SCENES)


def shown(prompt: str = "a red circle") -> ReportPictures:
    rows = torch.stack([PICTURES, PICTURES], 1)
    unseen = [scene.unseen for scene in SCENES]
    return ReportPictures((1, 2), PICTURES, rows, [prompt] * 8, rows, VERDICTS, unseen, torch.stack([rows.flip(0)], 1))


def results(name: str = "count") -> dict[str, Any]:
    curve = {"1": 0.5, "2": 0.75}
    recall = {f"{way}_r{n}": 0.5 for way in ("image_to_caption", "caption_to_image") for n in (1, 5)}
    chance = chance_verdicts([true_reading(s) for s in SCENES], SCENES)
    drawn = {"value": {"1": 0.375, "2": 0.875}, "chance": {"1": 0.125, "2": 0.125}, "ceiling": 1.0}
    return {
        "title": "a run",
        "images": {"size": 16, "test": 8, "train": 8},
        "tokens": {"length": 2, "dim": 4},
        "psnr": {"1": 20.0, "2": 30.123456},
        "ssim": curve,
        "probe": {"levels": {name: curve}, "labels": {name: curve}},
        "probe_chance": {"levels": {name: 0.25}, "labels": {name: 0.25}},
        "retrieval": {name: {"1": recall, "2": recall}},
        "retrieval_chance": {name: recall},
        "retrieval_candidates": {name: {"images": 8, "captions": 3}},
        "reader": summarise_verdicts(VERDICTS, chance, VERDICTS, SCENES),
        "reader_by_prefix": {"count": curve, "everything": curve},
        "variety": {
            "reader": {"value": 0.03, "real": 0.12, "shapes": 9},
            "reader_unguided": {"value": None, "shapes": 0},
        },
        "prefix_truth": {"levels": {name: drawn}, "attributes": {name: drawn}},
        "stages": {
            "generate": {"seconds": 2.0, "images": 8, "images_per_second": 4.0},
            "other": {"seconds": 1.0},
        },
        "protocol": {"psnr": "how it was measured"},
    }


class Tags(HTMLParser):
    """Collects start tags and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use", "rect"):
            assert self.open.pop() == tag


def parsed(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    return parser.found


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    page = write_report(tmp_path, results(), shown()).read_text(encoding="utf-8")
    for tag, attributes in parsed(page):
        assert tag not in ("script", "link", "iframe"), tag
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, value)
    assert not re.search(r"url\((?!#)|@import", page)


def test_variety_is_shown_where_some_drawings_were_right() -> None:
    page = render_report(results(), shown(), {})
    assert page.count('<tr><th scope="row">as shown above</th><td><b>0.030</b></td><td>0.120</td><td>25.0') == 1
    assert "without guidance</th><td>" not in page
    none = results() | {"variety": {"reader": {"value": None, "real": None, "shapes": 0}}}
    assert "Do drawings of one prompt differ?" not in render_report(none, shown(), {})


def test_text_from_data_is_escaped_everywhere() -> None:
    mine = results(EVIL) | {"title": EVIL, "about": {EVIL: EVIL}, "protocol": {"psnr": EVIL, "reader": EVIL}}
    mine["stages"] = {EVIL: {"seconds": 1.0}}
    page = render_report(mine, shown(EVIL), {EVIL * 2: results()})
    parsed(page)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert") > 10


def test_results_json_holds_every_number_unrounded(tmp_path: Path) -> None:
    write_report(tmp_path, results(), shown())
    kept = read_results(tmp_path)
    assert kept == {"schema": 1, **results()}
    assert kept["psnr"]["2"] == 30.123456


def test_a_report_can_be_made_again_from_its_folder(tmp_path: Path) -> None:
    path = write_report(tmp_path, results(), shown(EVIL))
    again = write_report(tmp_path / "again", read_results(tmp_path), kept_pictures(tmp_path))
    assert again.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    names = ("pictures.safetensors", "results.json")
    assert [(tmp_path / name).read_bytes() for name in names] == [again.with_name(name).read_bytes() for name in names]
    assert kept_pictures(tmp_path / "nothing") is None


def test_what_a_killed_writer_left_goes_and_nothing_else(tmp_path: Path) -> None:
    for name in (".strip.png.abcd1234.tmp", ".results.json.abcd1234.tmp", ".mine.png.abcd1234.tmp", "strip.tmp"):
        (tmp_path / name).write_bytes(b"half")
    write_report(tmp_path, {"psnr": {"1": 10.0}})
    assert {path.name for path in tmp_path.iterdir()} == {
        *("results.json", "report.html", ".mine.png.abcd1234.tmp", "strip.tmp")
    }


def test_pictures_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """Each of their words stood alone."""
    write_report(tmp_path, results(), shown(EVIL))
    path = tmp_path / "pictures.safetensors"
    with safe_open(path, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
        words = json.loads(stored.metadata()["words"])
    save_file(tensors, path, {name: json.dumps(value) for name, value in words.items()})
    kept = kept_pictures(tmp_path)
    assert kept is not None
    assert (kept.prompts, kept.prefixes) == (list(shown(EVIL).prompts), list(shown(EVIL).prefixes))


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "pictures.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match=r"pictures\.safetensors"):
        kept_pictures(tmp_path)


def test_missing_sections_are_left_out(tmp_path: Path) -> None:
    page = write_report(tmp_path, {"psnr": {"1": 20.0}, "title": "little"}).read_text(encoding="utf-8")
    parsed(page)
    assert "Does the picture show" not in page
    assert "PSNR" in page


def test_a_share_that_no_prompt_asks_for_is_a_dash() -> None:
    mine = results()
    mine["reader"]["count"] |= {"unseen": None, "chance_unseen": None, "chance": None}
    assert "–" in render_report(mine)


def test_the_same_results_give_the_same_page() -> None:
    assert render_report(results(), shown()) == render_report(results(), shown())


def test_wrong_attributes_are_named_beside_the_prompt() -> None:
    verdicts = [dict.fromkeys(v, True) for v in VERDICTS]
    verdicts[0] |= {"color": False, "everything": False}
    verdicts[1] |= {"everything": False}  # each attribute alone is right, but not for one and the same shape
    rows = generated_rows(ReportPictures((1, 2), PICTURES, shown().rebuilt, ["p"] * 8, shown().generated, verdicts))
    assert [row["wrong"] for row in rows[:3]] == [["color"], ["assignment"], []]


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", {"schema": 99})
    with pytest.raises(DataError, match=r"results\.json"):
        read_results(tmp_path)


def test_merged_results_unite_stages_and_refuse_contradictions() -> None:
    merged = merge({"psnr": {}, "stages": {"a": 1}}, {"stages": {"b": 2}, "protocol": {"x": "y"}})
    assert merged["stages"] == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="psnr"):
        merge({"psnr": {"1": 1.0}}, {"psnr": {"1": 2.0}})


def test_pictures_are_lossless_and_enlarged_by_repetition() -> None:
    picture = PICTURES[0]
    decoded = Image.open(io.BytesIO(base64.b64decode(data_uri(picture).split(",")[1])))
    assert list(decoded.getdata()) == [tuple(p) for p in picture.permute(1, 2, 0).reshape(-1, 3).tolist()]
    sheet = grid([[picture, PICTURES[1]], [PICTURES[2]]], scale=3)
    assert sheet.getpixel((6, 6)) == sheet.getpixel((8, 8)) == tuple(picture[:, 0, 0].tolist())
    assert strip(PICTURES, shown().rebuilt, (1, 2)).width == grid([list(PICTURES[:3])]).width


def test_names_of_curves_do_not_touch() -> None:
    placed = spread([10.0, 11.0, 99.0, 100.0, 50.0], 12.0, 100.0)
    ordered = sorted(placed)
    assert all(b - a >= 12.0 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert max(placed) <= 100.0
    assert [placed.index(p) for p in ordered] == [0, 1, 4, 2, 3]
    assert placed[4] == 50.0


def test_a_chart_without_values_is_empty() -> None:
    assert chart([Curve("none", {"1": None})], "%", "nothing") == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.42 s"), (75.2, "75 s"), (312.4, "5 min 12 s"), (7322, "2 h 2 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_what_is_drawn_from_a_prefix_stands_below_what_is_decoded(tmp_path: Path) -> None:
    page = render_report(results(), shown())
    assert page.count('alt="drawn from 1 tokens"') == len(SCENES)
    assert "Pictures drawn from k tokens that are right" in page
    assert "37.5" in page
    write_report(tmp_path, results(), shown())
    kept = kept_pictures(tmp_path)
    assert kept is not None
    assert torch.equal(kept.drawn, shown().drawn)
    plain = replace(shown(), drawn=None)
    assert strip(plain.originals, plain.rebuilt, plain.prefixes).height < Image.open(tmp_path / "strip.png").height
    assert 'alt="drawn' not in render_report(results(), plain)


def test_captions_stand_beside_their_pictures_and_in_a_table(tmp_path: Path) -> None:
    row = {"value": 0.9, "low": 0.8, "high": 0.95, "chance": 0.2, "real": 1.0, "seen": 0.9, "unseen": None}
    row |= {"chance_seen": 0.2, "chance_unseen": None, "prompts": 10, "prompts_seen": 10, "prompts_unseen": 0}
    own = {
        **results(),
        "captions": {"count": row, "everything": row},
        "captions_by_prefix": {"count": {"1": 0.7, "2": 0.9}},
    }
    pictures = replace(
        shown(),
        captioned=shown().originals,
        captions=["a <b>large</b> cross"] * len(shown().originals),
        caption_verdicts=[{"count": True, "size": False, "everything": False}] * len(shown().originals),
    )
    write_report(tmp_path, own, pictures)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;large&lt;/b&gt; cross" in page
    assert "✗ size" in page
    assert "Does the caption say what is there?" in page
    assert "Captions written from k tokens that are true" in page
    kept = kept_pictures(tmp_path)
    assert kept is not None
    assert kept.captions == pictures.captions
    assert torch.equal(kept.captioned, pictures.captioned)
    assert "From a picture to words" not in render_report(results(), shown())
