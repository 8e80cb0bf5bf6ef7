"""All terms at once, under the service: every ZeRO stage, precision and recomputation can take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seq_tokenizer.losses.build import TERMS
from tests.seq_tokenizer.losses.reached import objective_of
from tests.seq_tokenizer.losses.service import BATCH, train_pictures
from tests.seq_tokenizer.losses.test_frozen import Maps
from tests.seqtok_core.training.toy import lines

SIZES = {"width": 16, "layers": 1, "heads": 2}


def all_terms(folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.jit.script(Maps()).save(str(folder / "maps.pt"))
    network = {"network": str(folder / "maps.pt")}
    settings = {"contrast": {"loss": "sigmoid"}, "write": {}, "match": SIZES, "perceptual": network}
    settings |= {"teacher": {**network, "hidden": 16}, "adversary": {"width": 4, "layers": 2, "lr": 1e-3}}
    return {name: settings.get(name, {}) for name in TERMS}


def test_all_stages_follow_one_another(tmp_path: Path):
    """At stage 3 weights are cut, and gathered where a module is called: terms must not reach past that."""
    terms = all_terms(tmp_path)
    del terms["adversary"]  # refused at stage 3
    runs = [
        lines(train_pictures(tmp_path / str(stage), terms=terms, images=4 * BATCH, zero_stage=stage))
        for stage in (0, 3)
    ]
    for one, other in zip(*runs, strict=True):
        assert one.keys() == other.keys()
        assert {"write_loss_1", "match_loss", "agreement_loss", "perceptual_loss", "teacher_loss"} <= one.keys()
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"activation_checkpointing": True, "zero_stage": 2}])
def test_a_run_with_all_of_them_ends(settings: dict[str, Any], tmp_path: Path):
    found = lines(train_pictures(tmp_path / "run", terms=all_terms(tmp_path), images=4 * BATCH, **settings))
    assert len(found) == 4
    assert all(value == value for line in found for value in line.values())


def test_what_muon_must_not_touch_exists(tmp_path: Path):
    objective = objective_of(**all_terms(tmp_path))
    excluded = objective.muon_excluded()
    assert excluded <= {name for name, _ in objective.named_parameters()}
    assert {"tokenizer.writer.network.words.weight", "tokenizer.writer.vocabulary.weight"} <= excluded
    assert {"terms.match.judge.weight"} <= excluded
