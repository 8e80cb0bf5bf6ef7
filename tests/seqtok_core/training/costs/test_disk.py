"""Room on the disk is looked at before the first step, by what a checkpoint really takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import StorageError
from seqtok_core.training import TrainConfig
from seqtok_core.training.costs.disk import checkpoint_bytes
from tests.seqtok_core.training.toy import DEFAULTS, ToyObjective, train_toy

EVERY = {"checkpoint_every": 24, "keep": 3}


@pytest.mark.parametrize("settings", [{}, {"ema_decay": None}, {"muon_lr": None}])
def test_the_estimate_is_above_what_a_checkpoint_takes_and_near(settings, tmp_path: Path):
    train_toy(tmp_path, **settings)
    manifest = json.loads((tmp_path / "checkpoints" / "step_00000012" / "manifest.json").read_text())
    real = manifest["files"]["part_00000_of_00001.safetensors"]["bytes"]
    header = 20_000  # names, which weigh much in a toy
    estimate = checkpoint_bytes(ToyObjective(), TrainConfig(**{**DEFAULTS, **settings}))
    assert real - header <= estimate <= 2 * real


def test_a_disk_without_room_ends_the_run_before_its_first_step(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(StorageError, match=r"0\.0 MiB free, but a checkpoint of this run takes up to 0\.\d MiB"):
        train_toy(tmp_path, **EVERY)
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not (tmp_path / "checkpoints").exists()


def test_less_room_than_all_that_is_kept_is_a_warning(tmp_path: Path, monkeypatch, caplog):
    one = checkpoint_bytes(ToyObjective(), TrainConfig(**DEFAULTS))
    monkeypatch.setattr("seqtok_core.training.costs.disk.files.free_bytes", lambda path: (2 << 20) + 3 * one)
    train_toy(tmp_path / "enough", **EVERY)
    assert "may be full" not in caplog.text
    train_toy(tmp_path / "many", **{**EVERY, "keep": 1}, keep_every=8, images=800)
    assert "102 checkpoints of up to 0.1 MiB" in caplog.text


@pytest.mark.parametrize(
    ("images", "batch", "given", "every"),
    [(1_000_000, 100, "auto", 50_000), (10_000, 100, "auto", 10_000), (96, 8, "auto", 800), (96, 8, None, None),
     (96, 8, 24, 24)],
)  # fmt: skip
def test_a_run_saves_on_its_way_although_nobody_said_how_often(images, batch, given, every):
    assert TrainConfig(images=images, batch=batch, checkpoint_every=given).save_every == every
    assert TrainConfig(images=images, batch=batch).checkpoint_every == "auto"
