"""A run that was stopped in any way ends with the bits of a run left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from seqtok_core.foundation.errors import MismatchError, Preempted
from tests.seqtok_core.training.toy import ToyLoader, in_child, lines, start_child, train_toy, under_torchrun, weights
from tests.slow import rest_slow

EVERY = {"checkpoint_every": 24, "log_every": 2}  # 3 steps of 8; not a multiple of log_every


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[int, Path]:
    folders = {stage: tmp_path_factory.mktemp(f"stage{stage}") for stage in range(4)}
    for stage, folder in folders.items():
        train_toy(folder, zero_stage=stage, **EVERY)
    return folders


def assert_same_bits(folder: Path, reference: Path) -> None:
    ours, theirs = weights(folder), weights(reference)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert lines(folder) == lines(reference)


@pytest.mark.parametrize("stage", rest_slow([0, 3, 1, 2], fast=2))
def test_stopped_by_a_signal_then_continued(stage, undisturbed, tmp_path, monkeypatch):
    class Interrupting(ToyLoader):
        def iterate(self, start_step):
            for number, batch in enumerate(super().iterate(start_step), start=start_step):
                if number == 4:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    with monkeypatch.context() as patch:
        patch.setattr("tests.seqtok_core.training.toy.ToyLoader", Interrupting)
        with pytest.raises(Preempted, match="SIGTERM after step 5") as caught:
            train_toy(tmp_path, zero_stage=stage, **EVERY)
    assert caught.value.exit_code == 75
    assert json.loads((tmp_path / "preempted.json").read_text())["step"] == 5
    result = train_toy(tmp_path, zero_stage=stage, **EVERY)
    assert result.resumed_from == "step_00000005"
    assert not (tmp_path / "preempted.json").exists()
    assert_same_bits(tmp_path, undisturbed[stage])


@pytest.mark.parametrize(
    ("fault", "resumed_from"),
    rest_slow(
        [
            ("training.step:1=kill", None),
            ("checkpoint.in_part:2=kill", "step_00000003"),
            ("checkpoint.before_rename:2=kill", "step_00000003"),
            ("checkpoint.after_rename:2=kill", "step_00000006"),
            ("training.step:5=kill", "step_00000003"),
        ],
        fast=2,
    ),
)
def test_killed_then_started_again(fault, resumed_from, undisturbed, tmp_path):
    assert in_child(tmp_path, faults=fault, **EVERY) == -signal.SIGKILL
    result = train_toy(tmp_path, **EVERY)
    assert result.resumed_from == resumed_from
    assert not list(tmp_path.glob("checkpoints/*.tmp"))
    assert_same_bits(tmp_path, undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("stage", rest_slow([3, 1, 2]))
def test_killed_at_other_stages(stage, undisturbed, tmp_path):
    assert in_child(tmp_path, faults="training.step:8=kill", zero_stage=stage, **EVERY) == -signal.SIGKILL
    assert train_toy(tmp_path, zero_stage=stage, **EVERY).resumed_from == "step_00000006"
    assert_same_bits(tmp_path, undisturbed[stage])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("point", ["training.step@rank1:5", "checkpoint.in_part@rank1:2"])
def test_one_of_two_processes_killed(stage, point, tmp_path):
    """The other one must not go on; the checkpoint it was in must not count."""
    settings = {"zero_stage": stage, **EVERY}
    assert under_torchrun([{"folder": str(tmp_path / "a"), **settings}]).returncode == 0
    job = {"folder": str(tmp_path / "b"), **settings}
    assert under_torchrun([{**job, "faults": f"{point}=kill"}]).returncode != 0
    again = under_torchrun([job])
    assert again.returncode == 0, again.stderr[-3000:]
    assert_same_bits(tmp_path / "b", tmp_path / "a")


def test_the_end_of_a_finished_run_is_made_again_from_its_checkpoint(undisturbed, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")  # killed between the last checkpoint and the model
    result = train_toy(tmp_path / "run", **EVERY)
    assert result.steps == 12
    assert result.images == 96
    assert_same_bits(tmp_path / "run", undisturbed[0])


def test_a_named_checkpoint_starts_a_run_in_another_folder(undisturbed, tmp_path):
    source = undisturbed[0] / "checkpoints" / "step_00000009"
    result = train_toy(tmp_path, resume=str(source), **EVERY)
    assert result.resumed_from == "step_00000009"
    assert train_toy(tmp_path, resume=str(source), **EVERY).resumed_from == "step_00000012"  # its own by now
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, weights(undisturbed[0])[name])


def test_a_run_that_goes_on_may_get_longer(tmp_path, caplog):
    """With a constant rate nothing else changes: the bits are those of the longer run, started as such."""
    settings = {"schedule": "constant", **EVERY}
    train_toy(tmp_path / "whole", images=192, **settings)
    train_toy(tmp_path / "longer", images=96, **settings)
    result = train_toy(tmp_path / "longer", images=192, **settings)
    assert (result.resumed_from, result.steps) == ("step_00000012", 24)
    assert_same_bits(tmp_path / "longer", tmp_path / "whole")
    assert "192 images, not 96" in caplog.text
    assert yaml.safe_load((tmp_path / "longer" / "config.yaml").read_text())["train"]["images"] == 192
    with pytest.raises(MismatchError, match=r"`images=96` are fewer"):
        train_toy(tmp_path / "longer", images=96, **settings)


def test_the_log_begins_with_what_the_run_is_and_where_it_stands(tmp_path, capsys):
    def said() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith(str(tmp_path))]

    train_toy(tmp_path, **EVERY)
    begun = said()
    assert begun[0] == f"{tmp_path}: new run of 12 steps (96 images)"
    assert "M parameters, batch 8, fp32 on cpu" in begun[1]
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000012")
    train_toy(tmp_path, **EVERY)
    assert said()[0] == f"{tmp_path}: continues from step 9 of 12 (72 of 96 images)"
    train_toy(tmp_path, **EVERY)
    assert said()[0] == f"{tmp_path}: all steps are done, the last of 12 (96 of 96 images)"
    train_toy(tmp_path / "other", resume=str(tmp_path / "checkpoints" / "step_00000009"), **EVERY)
    assert f"begun elsewhere: {tmp_path / 'checkpoints' / 'step_00000009'}" in said()[0]


def test_a_killed_runs_log_says_how_long_it_would_have_taken(tmp_path):
    """kill -9 in the third step, long before the first line of metrics."""
    said = tmp_path / "said.txt"
    child = start_child({"folder": str(tmp_path / "run"), "faults": "training.step:3=kill", "log_every": 100}, {}, said)
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    text = said.read_text()
    assert "new run of 12 steps" in text
    assert re.search(r"run: 16/96 images, \d+ images/s, \d+:\d\d left\n", text)
