"""A run's folder: what is ours is known by a record, only that is cleared, and a stopped run is not begun anew."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from seqtok_core.foundation import run_record
from seqtok_core.foundation.errors import ConfigError, MismatchError, Preempted, StorageError
from tests.seqtok_core.training.toy import train_toy

FAST = {"images": 48, "checkpoint_every": 24}  # steps 3 and 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_toy(folder, **FAST)
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def settings_of(run: Path) -> float:
    import yaml

    return yaml.safe_load((run / "config.yaml").read_text())["train"]["lr"]


FOREIGN = {
    "config.yaml": "a: 1",
    "environment.json": '{"python": "3.11"}',
    "run.json": '{"kind": "a relay race"}',
    "model/config.json": "{}",
    "model/net.py": "x = 1",
    "checkpoints/best.ckpt": "weights",
    "checkpoints/step_00000006/manifest.json": "{}",
    "metrics.jsonl": "{}",
}


@pytest.mark.parametrize("names", [["config.yaml"], ["metrics.jsonl"], ["run.json"], [*FOREIGN]])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_without_our_record_is_refused_and_left_as_it_was(names, overwrite, tmp_path):
    for name in names:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_text(FOREIGN[name])
    before = content(tmp_path / "p")
    with pytest.raises(ConfigError, match="holds files but no run"):
        train_toy(tmp_path / "p", overwrite=overwrite, **FAST)
    assert content(tmp_path / "p") == before


def test_foreign_files_within_an_own_run_stay(run):
    mine = ["notes.txt", "venv/bin/python", "model/net.py", "checkpoints/best.ckpt", "samples/mine.png"]
    mine += ["checkpoints/step_00000003.left/notes.txt", "tensorboard/mine.txt", "wandb/keep/me"]
    (run / "checkpoints" / "step_00000003" / "notes.txt").write_text("mine")
    for name in mine:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        if "step" not in name:
            (run / name).write_text("mine")
    shutil.rmtree(run / "checkpoints" / "step_00000003.left")
    assert train_toy(run, overwrite=True, lr=0.5, **FAST).resumed_from is None
    assert {name: (run / name).read_text() for name in mine} == dict.fromkeys(mine, "mine")
    assert settings_of(run) == 0.5
    assert sorted(p.name for p in (run / "checkpoints").glob("step_*")) == [
        "step_00000003", "step_00000003.left", "step_00000006",
    ]  # fmt: skip


@pytest.mark.parametrize("place", [".", "..", "/", "~"])
def test_a_home_and_the_folder_we_work_in_are_not_cleared(place, run, monkeypatch):
    monkeypatch.setenv("HOME", str(run))
    monkeypatch.chdir(run)
    before = content(run)
    with pytest.raises(ConfigError, match=r"is or holds .*`overwrite`"):
        train_toy(Path(place).expanduser(), overwrite=True, **FAST)
    assert content(run) == before
    assert train_toy(Path("."), **FAST).steps == 6  # to go on there is another matter


def test_a_run_of_an_earlier_version_is_known_by_what_only_ours_have(run):
    (run / "run.json").unlink()
    assert train_toy(run, **FAST).resumed_from == "step_00000006"
    (run / "run.json").unlink()
    assert train_toy(run, overwrite=True, lr=0.5, **FAST).resumed_from is None
    assert settings_of(run) == 0.5


def test_a_clearing_that_was_interrupted_is_done_again(run, monkeypatch):
    def interrupted(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seqtok_core.training.run_folder.clear_checkpoints", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_toy(run, overwrite=True, lr=0.5, **FAST)
    assert settings_of(run) == 3e-3  # of what is left
    assert train_toy(run, overwrite=True, lr=0.5, **FAST).resumed_from is None


@pytest.mark.parametrize("name", ["checkpoints", "model", "tensorboard"])
def test_a_link_within_a_run_is_refused_and_what_lies_behind_it_stays(name, run, tmp_path):
    shutil.move(run / name, tmp_path / "scratch")
    os.symlink(tmp_path / "scratch", run / name)
    before = content(tmp_path)
    with pytest.raises(ConfigError, match=rf"{name}: is a symbolic link \(to .*scratch"):
        train_toy(run, overwrite=True, lr=0.5, **FAST)
    assert content(tmp_path) == before
    assert train_toy(run, **FAST).resumed_from == "step_00000006"  # to go on through it is another matter


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_folder_where_a_run_has_one_is_named(overwrite, run, tmp_path):
    shutil.move(run / "checkpoints", tmp_path / "kept")
    os.symlink(tmp_path / "nowhere", run / "checkpoints")
    for _ in range(2):
        with pytest.raises(ConfigError, match="checkpoints: is no folder"):
            train_toy(run, overwrite=overwrite, **FAST)
        (run / "checkpoints").unlink()
        (run / "checkpoints").write_text("a file")


def test_an_output_that_is_a_link_is_followed(run, tmp_path):
    os.symlink(run, tmp_path / "link")
    assert train_toy(tmp_path / "link", overwrite=True, lr=0.5, **FAST).resumed_from is None
    assert settings_of(run) == 0.5


def test_a_checkpoint_that_is_a_link_goes_without_what_it_points_to(run, tmp_path):
    shutil.move(run / "checkpoints" / "step_00000006", tmp_path / "step_00000006")
    os.symlink(tmp_path / "step_00000006", run / "checkpoints" / "step_00000006")
    before = content(tmp_path / "step_00000006")
    assert train_toy(run, overwrite=True, lr=0.5, **FAST).resumed_from is None
    assert content(tmp_path / "step_00000006") == before


def test_a_run_that_cannot_be_removed_is_never_taken_for_a_new_one(run, monkeypatch):
    def refused(folder):
        raise OSError(39, "Directory not empty", "manifest.json")

    monkeypatch.setattr("seqtok_core.training.run_folder.clear_checkpoints", refused)
    with pytest.raises(StorageError, match=r"the run in it cannot be removed \(manifest.json: Directory not empty\)"):
        train_toy(run, overwrite=True, lr=0.5, **FAST)


def test_a_checkpoint_of_the_run_that_goes_cannot_begin_the_new_one(run):
    with pytest.raises(ConfigError, match="lies in the run that `overwrite` removes"):
        train_toy(run, overwrite=True, resume=str(run / "checkpoints" / "step_00000003"), **FAST)
    assert train_toy(run, **FAST).resumed_from == "step_00000006"


def test_what_killed_writers_left_is_swept_by_the_next_start(run):
    left = [".config.yaml.abcd1234.tmp", ".run.json.abcd_234.tmp", "samples/.scores.jsonl.abcd1234.tmp"]
    left += ["model/.model.safetensors.abcd1234.tmp", "model/.captions.model.abcd1234.tmp"]
    (run / "samples").mkdir(exist_ok=True)
    for name in [*left, ".mine.abcd1234.tmp"]:
        (run / name).write_text("half")
    train_toy(run, **FAST)
    assert [path.name for path in run.rglob("*.tmp")] == [".mine.abcd1234.tmp"]


# --- asked to stop, and started again


def test_a_start_that_fails_takes_the_word_for_the_scheduler_away(tmp_path):
    with pytest.raises(Preempted):
        train_toy(tmp_path, stop_after=4, **FAST)
    assert (tmp_path / "preempted.json").exists()
    with pytest.raises(MismatchError):
        train_toy(tmp_path, lr=0.5, **FAST)
    assert not (tmp_path / "preempted.json").exists()
    assert train_toy(tmp_path, **FAST).resumed_from == "step_00000004"


def test_a_stop_before_the_first_step_is_noted_but_in_no_foreign_folder(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "notes.txt").write_text("mine")
    for name in ("theirs", "new"):
        assert run_record.stopped_early(tmp_path / name, "SIGTERM").exit_code == 75
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["notes.txt"]
    assert json.loads((tmp_path / "new" / "preempted.json").read_text())["signal"] == "SIGTERM"
    assert train_toy(tmp_path / "new", **FAST).resumed_from is None
    assert not (tmp_path / "new" / "preempted.json").exists()


def test_overwrite_in_a_requeued_command_does_not_begin_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["train", "--overwrite"])
    train_toy(tmp_path, overwrite=True, lr=0.5, **FAST)
    for step, begun in [(2, None), (5, "step_00000002")]:
        with pytest.raises(Preempted, match="start the same command again to continue"):
            train_toy(tmp_path, overwrite=True, stop_after=step, **FAST)
        record = json.loads((tmp_path / "run.json").read_text())
        assert (record["stopped"] or {}).get("step") == (begun and 2)
    run_record.take_stop(tmp_path)  # by a start in between that failed
    assert not (tmp_path / "preempted.json").exists()
    result = train_toy(tmp_path, overwrite=True, **FAST)
    assert result.resumed_from == "step_00000005"
    assert "stopped by SIGTERM after step 5 of this very command, so it continues" in caplog.text
    assert train_toy(tmp_path, overwrite=True, **FAST).resumed_from is None  # that one was finished


@pytest.mark.parametrize("other", ["command", "settings", "no overwrite", "never"])
def test_overwrite_begins_anew_where_it_was_another_command(other, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--overwrite"])
    with pytest.raises(Preempted):
        train_toy(tmp_path, overwrite=other != "no overwrite", stop_after=4, **FAST)
    if other == "command":
        monkeypatch.setattr(sys, "argv", ["train", "again", "--overwrite"])
    changed = {"lr": 0.5} if other == "settings" else {}
    resume = "never" if other == "never" else "auto"
    assert train_toy(tmp_path, overwrite=True, resume=resume, **changed, **FAST).resumed_from is None
