"""The table of a suite and the words beside it: written from the numbers, so that other numbers give other words."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from seqtok.evaluation.ordering.conclusions import conclusions
from seqtok.evaluation.ordering.page import write_page
from seqtok.evaluation.ordering.table import Row, figure, summarise_suite

JUDGE: dict[str, Any] = {"chosen": {"split": "val"}}


def run(seed: int, strict: float, frechet: float, right: float, early: float, psnr: float) -> dict[str, Any]:
    """A results.json with little noise that differs by seed."""
    noise = 0.001 * seed
    accuracy = {"count": {"1": early + noise, "16": 1.0}, "shapes": {"1": 0.3, "16": 0.9}}
    return {
        "seed": seed,
        "order": {
            "strict": {"value": strict},
            "gap": {"value": 1.0},
            "ties": {"value": 0.0},
            "accuracy": accuracy,
            "chance": {"count": 0.3, "shapes": 0.1},
        },
        "psnr": {"1": 15.0, "16": psnr + noise},
        "reader": {"everything": {"value": right + noise, "unseen": right}},
        "reader_unguided": {"everything": {"value": right - 0.05 + noise, "unseen": right}},
        "frechet": {"guided": frechet, "unguided": frechet + noise},
    }


def suite(seeds: int = 3) -> list[Row]:
    figures = {
        "text_on_every_prefix": (1.0, 1.0, 0.95, 0.95, 30.0),
        "nested": (0.5, 1.6, 0.8, 0.6, 31.0),
        "raster": (0.3, 2.0, 0.7, 0.5, 32.0),
        "random": (0.0, 2.5, 0.6, 0.4, 31.0),
    }
    return [
        Row(name, name, name.startswith("text"), [run(seed, *values) for seed in range(seeds)])
        for name, values in figures.items()
    ]


def said(rows: list[Row]) -> str:
    return " ".join(conclusions(rows, summarise_suite(rows, JUDGE)))


def test_an_interval_is_students():
    assert figure([1.0, 2.0, 3.0]).mean == 2.0
    assert figure([1.0, 2.0, 3.0]).half == pytest.approx(4.303 / 3**0.5)
    assert figure([1.0]).half is None


def test_a_clear_lead_is_said_and_swapped_numbers_say_the_contrary():
    rows = suite()
    assert "The learned order is drawn nearer to real pictures" in said(rows)
    assert "Text raises area, count" in said(rows)
    assert "Text costs PSNR k = 16" in said(rows)
    swapped = copy.deepcopy(rows)
    first, raster = swapped[0], swapped[2]
    swapped[0] = Row(first.name, first.says, first.taught, raster.runs)
    swapped[2] = Row(raster.name, raster.says, raster.taught, first.runs)
    words = said(swapped)
    assert "The learned order loses" in words
    assert "The learned order is drawn nearer" not in words
    assert "Text raises area, count" not in words


def test_one_seed_decides_nothing():
    words = said(suite(seeds=1))
    assert words.startswith("One seed each")
    assert "for want of seeds" in words
    assert "The learned order is drawn nearer" not in words


def test_intervals_that_touch_are_a_perhaps():
    rows = suite()
    for seed, one in enumerate(rows[0].runs):
        one["frechet"]["unguided"] = 1.5 + seed  # widely spread, its mean beside raster's 2
    for seed, one in enumerate(rows[2].runs):
        one["frechet"]["unguided"] = 2.1 + seed
    words = said([rows[0], rows[2]])
    assert "Perhaps the learned order is drawn nearer" not in said(suite())
    assert re.search(r"(Perhaps|not ahead)[^.]*drawn nearer", words)


def test_every_kind_of_rival_is_named():
    """Also one that captions taught elsewhere, and one without captions whose order is learned."""
    rows = suite()
    rows.append(Row("text_on_last_token", "", True, [run(seed, 0.2, 0.5, 0.99, 0.5, 31.0) for seed in range(3)]))
    words = said(rows)
    assert "95.1 ± 0.2 % against 70.1 ± 0.2 % of the best fixed order, raster" in words
    assert "95.1 ± 0.2 % against 80.1 ± 0.2 % of the best one without captions, nested" in words
    assert re.search(r"The learned order loses: .*of the best other one with captions, text_on_last_token", words)
    assert "other one with captions" not in said(suite())


def test_few_equal_seeds_decide_nothing():
    """Concordance has few values: two seeds are often alike by chance."""
    tells = "The learned order tells coarser levels"
    assert tells not in said(suite(seeds=2))
    assert "2 equal seeds are too few" in said(suite(seeds=2))
    assert tells in said(suite())
    assert "1.00 with each of 3 seeds against 0.30 with each of 3 seeds" in said(suite())


def test_what_makes_distances_worth_less_is_said():
    rows = suite()
    same = {**JUDGE, "pictures_split": "val"}
    assert "chosen on the val split" in " ".join(conclusions(rows, summarise_suite(rows, same)))
    assert "chosen on the val split" not in said(rows)
    for row in rows:
        for one in row.runs:
            one["hashes"] = {"eye": "a"}
    assert "eyes saw" not in said(rows)
    rows[1].runs[0]["hashes"]["eye"] = "b"
    assert "2 eyes saw these pictures" in said(rows)


def test_settings_chosen_on_the_test_split_are_named():
    rows = suite()
    chosen = {"chosen": {"split": "test"}}
    assert "chosen on the test split" in " ".join(conclusions(rows, summarise_suite(rows, chosen)))
    assert "chosen on the test split" not in said(rows)


def test_too_few_pictures_for_a_distance_are_named():
    rows = suite()
    assert "not to be compared" not in said(rows)
    rows[1].runs[0]["frechet"]["note"] = "64 pictures are fewer than the 256 features"
    for some in (rows, rows[1:]):
        assert "not to be compared with others: 64 pictures are fewer" in said(some), "whoever takes part"


def test_files_hold_every_figure_and_the_page_refers_to_nothing_outside(tmp_path: Path):
    rows = suite()
    rows[0] = Row("text_on_every_prefix", "<script>alert(1)</script>", True, rows[0].runs)
    page = write_page(tmp_path, summarise_suite(rows, JUDGE), rows).read_text()
    assert "<script>" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    table = json.loads((tmp_path / "ordering.json").read_text())
    lines = list(csv.DictReader(io.StringIO((tmp_path / "ordering.csv").read_text())))
    assert len(lines) == sum(map(len, table["figures"].values()))
    assert table["figures"]["strict"]["raster"] == {"mean": pytest.approx(0.3), "half": pytest.approx(0.0), "seeds": 3}
    plot = (tmp_path / "plots" / "probe_count.svg").read_text()
    assert "var(--" not in plot, "a file has colours of its own"
    assert (tmp_path / "plots" / "probe_count.png").read_bytes().startswith(b"\x89PNG")


def test_a_contestant_without_a_figure_is_left_blank(tmp_path: Path):
    rows = suite()
    for one in rows[3].runs:
        del one["reader"]
    summary = summarise_suite(rows, JUDGE)
    assert set(summary.figures["reader"]) == {"text_on_every_prefix", "nested", "raster"}
    assert "–" in write_page(tmp_path, summary, rows).read_text()


@pytest.mark.parametrize("learned", [True, False])
def test_every_contestant_has_its_curve_and_the_learned_order_leads(learned: bool, tmp_path: Path):
    known = suite(1)
    rows = [Row(f"other_{number}", "", False, known[1].runs) for number in range(8)]
    rows[3:3] = known[:1] if learned else []
    write_page(tmp_path, summarise_suite(rows, JUDGE), rows)
    first = next(iter(json.loads((tmp_path / "ordering.json").read_text())["contestants"]))
    assert first == ("text_on_every_prefix" if learned else "other_0")
    shown = [named(tmp_path / "plots" / f"psnr{more}.svg") for more in ("", "_2")]
    assert [len(names) for names in shown] == ([6, 4] if learned else [6, 2])
    assert len(set().union(*shown)) == len(rows)
    assert not (tmp_path / "plots" / "psnr_3.svg").exists()


def named(file: Path) -> set[str]:
    """Contestants that a plot names; the longer ones shortened."""
    return set(re.findall(r"other_\d|text_on_every", re.sub(r"<[^>]*>", " ", file.read_text())))
