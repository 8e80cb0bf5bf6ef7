"""Understanding and resampling in the report: every number, every reason, and pictures that can be shown again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seqtok.evaluation.report.kept_pictures import ReportPictures, kept_pictures
from seqtok.evaluation.report.report import REDRAWN, REPORT_FILES, read_results, render_report, write_report
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.grids import as_tensor, redrawings
from tests.seqtok.evaluation.test_report import EVIL, parsed
from tests.seqtok.evaluation.toy import held_out

PICTURES = real_pictures(held_out(3), 16)
KEPT = (0, 1, 2, 4)
REDRAWN_PICTURES = torch.stack([torch.stack([PICTURES.roll(k + s, 0) for k in KEPT], 1) for s in (0, 1)], 1)
SHOWN = ReportPictures((1, 2), PICTURES, torch.stack([PICTURES] * 2, 1), kept=KEPT, redrawn=REDRAWN_PICTURES)


def understanding(name: str) -> dict[str, Any]:
    cell = {"value": 0.8125, "low": 0.75, "high": 0.875}
    sources = dict.fromkeys(("states_mean", "states_last", "latents", "latents_mean"), cell)
    labels = {source: {**own, "layer": 3} for source, own in sources.items()}
    found = {
        "labels": {name: {"chance": 0.25, **labels}},
        "levels": {name: {"chance": 0.25, **sources}},
        "by_layer": {"states_mean": {name: {"1": 0.5, "2": 0.75}}},
        "left_out": {f"captions of {name}": f"576 different {name}"},
    }
    chosen = {**cell, "chance": 0.125, "candidates": 34, "pictures": 1000}
    return {"understanding": found, "zero_shot": {name: chosen}, "protocol": {"understanding": f"read {name}"}}


def resampling(name: str) -> dict[str, Any]:
    curve = {str(k): k / 4 for k in KEPT}
    way = {
        "attributes": {name: curve, "everything": curve},
        "labels": {name: curve},
        "psnr": {str(k): 20.125 + k for k in KEPT},
        "std": {str(k): 4.0 - k for k in KEPT},
    }
    chance = {"attributes": {name: 0.3125, "everything": 0.0}, "labels": {name: 0.3125}}
    found = {"model": way, "swapped": way, "noise": way, "chance": chance, "ceiling": chance}
    return {"resampling": found, "forced": {name: curve}, "protocol": {"resampling": f"kept {name}"}}


def test_probes_and_likeliest_captions_are_shown_with_their_intervals() -> None:
    page = render_report(understanding("count"))
    parsed(page)
    assert page.count("81.2 (75.0–87.5)</td>") == 5
    assert page.count("81.2 (75.0–87.5), block 3</td>") == 4
    assert "12.5</td>" in page, "chance of the likeliest caption"
    assert "34</td>" in page
    assert "read count" in page
    assert "576 different count" in page
    assert 'aria-label="Linear probe accuracy after each block"' in page
    assert "Does it understand" not in render_report({"psnr": {"1": 20.0}})


def test_understanding_without_labels_shows_the_captions_alone() -> None:
    mine = understanding("count")
    mine["understanding"] |= {"labels": {}, "levels": {}, "by_layer": {"states_mean": {}}}
    page = render_report(mine)
    assert "likeliest of a level" in page
    assert "Linear probes of states" not in page


def test_a_second_opinion_and_what_is_new_stand_in_tables() -> None:
    shares = {"guided": 0.9375, "unguided": 0.875, "rebuilt": None, "real": 1.0}
    page = render_report(
        {
            "second_reader": {"everything": shares},
            "reader_rebuilt": {"everything": 0.9765, "place": None},
            "by_shapes": {"1": {"guided": 0.5625}, "3": {"guided": 0.4375}},
            "novelty": {"captions": {"1": 0.8125, "all": 0.6875}, "distance": {"drawn": 31.25, "held_out": 30.5}},
            "protocol": {"second_reader": "never trained"},
        }
    )
    parsed(page)
    for shown in ("93.8", "87.5", "97.7", "56.2", "43.8", "81.2", "68.8", "31.2", "30.5", "never trained"):
        assert shown in page, shown
    assert "A second opinion" not in render_report({"psnr": {"1": 20.0}})


def test_a_set_stands_in_a_table_with_how_it_was_drawn() -> None:
    found = {"pictures": 50_000, "network": "inception:w.pth", "reference": "imagenet.npz", "frechet": 2.3456}
    page = render_report(
        {
            "samples": found | {"inception_score": {"mean": 301.5, "std": 2.0}},
            "protocol": {"samples": "1,000 prompts, each as often as another"},
        }
    )
    for wanted in ("50,000 drawn pictures against imagenet.npz", "2.346", "301.50", "each as often as another"):
        assert wanted in page
    assert "<td>–</td>" in page, "no precision without pictures of the reference"


def test_what_stays_is_shown_over_the_tokens_kept() -> None:
    page = render_report(resampling("count"), SHOWN)
    parsed(page)
    for title in ("What stays, drawn by the model", "Std over redrawings", "First tokens true, then free"):
        assert title in page
    assert page.count('alt="0 tokens kept, the rest drawn anew"') == 2 * len(PICTURES)
    assert "31.2</td>" in page
    assert "21.12</td>" in page
    assert "What do the first tokens fix?" not in render_report(understanding("count"))


def test_names_from_data_are_escaped() -> None:
    page = render_report({**understanding(EVIL), **resampling(EVIL)}, SHOWN)
    parsed(page)
    assert "<script" not in page


def test_redrawn_pictures_are_kept_and_drawn_again(tmp_path: Path) -> None:
    path = write_report(tmp_path, resampling("count"), SHOWN)
    kept = kept_pictures(tmp_path)
    assert kept is not None
    assert torch.equal(kept.redrawn, REDRAWN_PICTURES)
    again = write_report(tmp_path / "again", read_results(tmp_path), kept)
    assert again.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    assert (tmp_path / REDRAWN).is_file()
    assert REDRAWN in REPORT_FILES
    plain = write_report(tmp_path / "plain", {"psnr": {"1": 20.0}}, replace(SHOWN, redrawn=None, kept=()))
    assert not (plain.parent / REDRAWN).exists()


def test_the_sheet_has_a_row_for_each_redrawing_and_ends_with_the_original() -> None:
    sheet = as_tensor(redrawings(PICTURES, REDRAWN_PICTURES, KEPT, scale=1))
    cell, top = 16 + 6, 18 + 6
    for row in range(6):
        for column in range(len(KEPT) + 1):
            at = sheet[:, top + row * cell :, 6 + column * cell :][:, :16, :16]
            wanted = PICTURES[row // 2] if column == len(KEPT) else REDRAWN_PICTURES[row // 2, row % 2, column]
            assert torch.equal(at, wanted)
