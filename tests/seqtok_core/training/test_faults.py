"""Numbers that are not finite, files cut short, callbacks, and what a run leaves behind."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch

from seqtok_core.foundation.errors import ConfigError, SeqtokError, StorageError
from seqtok_core.training import TrainConfig, World, train
from seqtok_core.training.journal.metrics import SCORES, MetricsLog, Shown
from tests.seqtok_core.training.toy import DEFAULTS, ToyLoader, ToyObjective, lines, train_toy, weights


@pytest.fixture
def faults(monkeypatch):
    def plan(text: str) -> None:
        monkeypatch.setattr("seqtok_core.foundation.faults._visits", Counter())
        monkeypatch.setenv("SEQTOK_FAULTS", text)

    return plan


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_nan_loss_skips_its_step_and_nothing_else(stage, precision, faults, tmp_path):
    """Step 3 of 3 is spoiled: weights and average must be those after step 2."""
    settings = {"zero_stage": stage, "precision": precision, "schedule": "constant", "ema_decay": 0.5}
    train_toy(tmp_path / "two", images=16, warmup_images=0, **settings)
    faults("training.loss:3=nan")
    result = train_toy(tmp_path / "three", images=24, warmup_images=0, **settings)
    assert result.skipped == 1
    for name, value in weights(tmp_path / "two").items():
        assert torch.equal(value, weights(tmp_path / "three")[name]), name
    last = lines(tmp_path / "three")[-1]
    assert last["skipped"] == 1
    assert "loss" not in last


@pytest.mark.parametrize("stage", [0, 2])
def test_an_infinite_loss_with_a_finite_gradient_is_skipped_too(stage, tmp_path):
    class Overflowing(ToyObjective):
        def forward(self, batch):
            values = super().forward(batch)
            spoiled = math.inf if batch.keys[0].startswith("5-") else 0.0
            return {**values, "loss": values["loss"] + spoiled}

    config = TrainConfig(**DEFAULTS, zero_stage=stage)
    assert train(Overflowing(), ToyLoader(8, 8, 0, 1), config, tmp_path, resolved={}).skipped == 1


def test_training_goes_on_after_a_skipped_step_and_inside_accumulation(faults, tmp_path):
    faults("training.loss:6=nan")  # second micro-batch of the third step
    result = train_toy(tmp_path, micro_batch=4)
    assert result.skipped == 1
    assert result.steps == 12
    assert all(value.isfinite().all() for value in weights(tmp_path).values())
    assert math.isfinite(result.last["loss"])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_too_many_in_a_row_stop_the_run_and_name_the_samples(stage, faults, tmp_path):
    faults("training.loss=nan")
    with pytest.raises(SeqtokError, match="3 steps in a row") as caught:
        train_toy(tmp_path, max_skipped=3, zero_stage=stage)
    assert caught.value.exit_code == 1
    assert json.loads((tmp_path / "bad_batch.json").read_text()) == {
        "step": 3,
        "keys": [f"2-{i}" for i in range(8)],
    }


def test_samples_and_the_model_get_the_average_on_a_plain_copy(tmp_path):
    seen: list[tuple[Path, int]] = []
    config = TrainConfig(**DEFAULTS, sample_every=32, zero_stage=3)
    world = World.from_environment()

    def on_sample(module: torch.nn.Module, folder: Path, images: int) -> None:
        assert not module.training
        with torch.no_grad():
            assert module(next(ToyLoader(8, 8, 0, 1).iterate(0)))["loss"].isfinite()
        for p in module.parameters():
            p.fill_(math.nan)  # it is a copy: training must not notice
        seen.append((folder, images))

    result = train(ToyObjective(), ToyLoader(8, 8, 0, 1), config, tmp_path, resolved={}, on_sample=on_sample)
    assert seen == [(tmp_path / "samples", images) for images in (32, 64, 96)]
    assert result.skipped == 0
    assert world.size == 1


def test_samples_are_scored_in_a_file_and_on_the_board_and_cut_back_with_the_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def on_sample(module: torch.nn.Module, folder: Path, images: int) -> Shown:
        return Shown({"right": images / 100, "wrong": math.inf}, torch.zeros(3, 4, 5, dtype=torch.uint8))

    config = TrainConfig(**DEFAULTS, sample_every=32)
    train(ToyObjective(), ToyLoader(8, 8, 0, 1), config, tmp_path, resolved={}, on_sample=on_sample)
    rows = [json.loads(line) for line in (tmp_path / SCORES).read_text().splitlines()]
    assert rows == [{"step": n // 8, "images": n, "right": n / 100, "wrong": None} for n in (32, 64, 96)]
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.value for event in board.Scalars("samples/right")] == pytest.approx([0.32, 0.64, 0.96])
    assert [event.step for event in board.Images("samples")] == [4, 8, 12]
    log = MetricsLog(tmp_path, 4)
    log.close()
    assert len((tmp_path / SCORES).read_text().splitlines()) == 1


def test_the_loader_must_have_the_configured_batch(tmp_path):
    with pytest.raises(ConfigError, match="global batch is 4"):
        train(ToyObjective(), ToyLoader(4, 4, 0, 1), TrainConfig(**DEFAULTS), tmp_path, resolved={})


def test_metrics_are_cut_back_to_the_checkpoint_and_a_torn_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "images": 8}\n{"step": 2, "images": 16}\n{"step": 3, "images": 24}\n{"ste')
    log = MetricsLog(tmp_path, 2)
    log.write({"step": 3, "images": 24, "loss": math.nan})
    log.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {"step": 1, "images": 8},
        {"step": 2, "images": 16},
        {"step": 3, "images": 24, "loss": None},
    ]


def test_a_byte_that_is_no_text_costs_its_line_and_not_the_run(tmp_path, caplog):
    settings = {"checkpoint_every": 48, "keep": 9}
    train_toy(tmp_path, **settings)
    before = lines(tmp_path)
    path = tmp_path / "metrics.jsonl"
    rows = path.read_bytes().split(b"\n")
    rows[2] = rows[2][:9] + b"\xff\xfe" + rows[2][11:]
    path.write_bytes(b"\n".join(rows))
    (tmp_path / "samples").mkdir()
    (tmp_path / SCORES).write_bytes(b"\x80\x81\n\x00\x00")
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000012")
    assert train_toy(tmp_path, **settings).resumed_from == "step_00000006"
    assert lines(tmp_path) == before[:2] + before[3:]
    assert "metrics.jsonl: 1 damaged lines are left out" in caplog.text


def test_a_full_disk_under_tensorboard_is_one_message(tmp_path, monkeypatch, capsys):
    """It writes in a thread, whose own traceback nobody asked for."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(self: RecordWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log, hook = MetricsLog(tmp_path, 0), threading.excepthook
    monkeypatch.setattr(RecordWriter, "write", full)

    def write_on() -> None:
        for step in range(1, 9):
            log.write({"step": step, "images": 8 * step, "loss": 1.0})
            log.flush()

    with pytest.raises(StorageError, match="the disk is full"):
        write_on()
    log.close()
    assert threading.excepthook is not hook
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "wandb.json"])
def test_a_folder_in_the_place_of_a_file_is_refused_at_the_start(name, tmp_path):
    settings = {"checkpoint_every": 48, "keep": 9}
    train_toy(tmp_path, **settings)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(SeqtokError, match=name):
        train_toy(tmp_path, **settings)


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "samples", "model"])
def test_what_cannot_be_written_is_said_before_the_first_step(name, tmp_path, monkeypatch):
    train_toy(tmp_path)
    (tmp_path / "samples").mkdir()
    may = lambda path, mode: Path(path) != tmp_path / name  # noqa: E731 (whoever runs the tests may do everything)
    monkeypatch.setattr(os, "access", may)
    with pytest.raises(StorageError, match=f"{name}: cannot be written"):
        train_toy(tmp_path)


def test_a_run_folder_tells_what_happened(tmp_path):
    result = train_toy(tmp_path)
    present = {p.name for p in tmp_path.iterdir()}
    assert {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "model",
    } <= present
    assert json.loads((tmp_path / "environment.json").read_text())["versions"]["deepspeed"]
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert line.keys() >= {"step", "images", "loss", "words", "lr", "grad_norm", "images_per_s", "data_wait"}
    assert result.images == line["images"] == 96
    assert list(tmp_path.glob("tensorboard/events*"))
