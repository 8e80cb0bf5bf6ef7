"""Held-out data on the way: a line each time, the best model kept, and no bit of the training touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seqtok_core.foundation.errors import Preempted
from seqtok_core.training import TrainConfig, Validation, summarise, train
from tests.seqtok_core.training.toy import (
    DEFAULTS,
    StoppedLoader,
    ToyLoader,
    ToyObjective,
    lines,
    save_weights,
    train_toy,
    weights,
)

EVERY = {"checkpoint_every": 24, "log_every": 2, "keep": 9}


def measure(module: nn.Module) -> Mapping[str, float]:
    with torch.no_grad():
        found = module(next(ToyLoader(8, 8, 0, 1).iterate(1000)))
    return {name: float(value) for name, value in found.items()}


def validated(folder: Path, look: Any = measure, every: int = 16, loader: Any = None, **settings: Any) -> Any:
    config = TrainConfig(**{**DEFAULTS, **EVERY, **settings})
    return train(
        ToyObjective(),
        loader or ToyLoader(8, 8, 0, 1),
        config,
        folder,
        resolved={},
        on_finish=save_weights,
        validation=Validation(every, look),
    )


def told(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "best").iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    validated(folder)
    return folder


def test_looking_at_held_out_data_changes_no_bit(whole: Path, tmp_path: Path):
    train_toy(tmp_path, **EVERY)
    assert lines(tmp_path) == lines(whole)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(tmp_path).items())
    assert [row["images"] for row in told(whole)] == [16, 32, 48, 64, 80, 96]
    assert not (tmp_path / "validation.jsonl").exists()


def test_the_end_of_a_run_is_a_look_too(tmp_path: Path):
    validated(tmp_path, every=40)
    assert [row["images"] for row in told(tmp_path)] == [40, 80, 96]


@pytest.mark.parametrize("stop_after", [4, 5, 9])
def test_a_run_that_was_stopped_ends_with_the_same_lines_and_the_same_best(
    stop_after: int, whole: Path, tmp_path: Path
):
    with pytest.raises(Preempted):
        validated(tmp_path, loader=StoppedLoader(ToyLoader(8, 8, 0, 1), stop_after))
    validated(tmp_path)
    assert told(tmp_path) == told(whole)
    assert content(tmp_path) == content(whole)


@pytest.mark.parametrize("point", ["training.best:3=kill", "training.step:7=kill", "checkpoint.before_rename:2=kill"])
def test_a_run_that_was_killed_too(point: str, whole: Path, tmp_path: Path):
    child = os.fork()
    if not child:
        os.environ["SEQTOK_FAULTS"] = point
        validated(tmp_path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    result = validated(tmp_path)
    assert told(tmp_path) == told(whole)
    assert content(tmp_path) == content(whole)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".best")]
    assert result.best["images"] == min(told(whole), key=lambda row: row["loss"])["images"]


def test_the_best_is_of_the_least_loss_and_a_nan_is_never_it(tmp_path: Path):
    losses, seen = [3.0, float("nan"), 1.0, 2.0, float("inf"), 1.0], []

    def look(module: nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in module.state_dict().items()})
        return {"loss": losses[len(seen) - 1], "other": 0.5}

    result = validated(tmp_path, look)
    assert [row["loss"] for row in told(tmp_path)] == [3.0, None, 1.0, 2.0, None, 1.0]
    best = torch.load(tmp_path / "best" / "weights.pt")
    assert all(torch.equal(value, seen[2][name]) for name, value in best.items())
    assert (result.best["images"], result.best["loss"]) == (48, 1.0)
    assert f"loss 1 of held-out data after 48 images: {tmp_path / 'best'}" in summarise(result)
    shutil.rmtree(tmp_path / "checkpoints")
    losses[:] = [5.0] * 6
    seen.clear()
    assert validated(tmp_path, look).best["loss"] == 5.0, "begun anew, what was is nothing to compare with"


def test_held_out_data_are_on_the_board(whole: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(whole / "tensorboard"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("validation/loss")}
    assert shown == pytest.approx({row["step"]: row["loss"] for row in told(whole)})
