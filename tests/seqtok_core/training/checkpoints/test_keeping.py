"""Which checkpoints stay: whole ones are counted, and a save is never ended by what cannot be swept or removed."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from seqtok_core.foundation.errors import Preempted
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.checkpoints.keeping import Keep, Keeper
from tests.seqtok_core.training.checkpoints.test_checkpoint import damage_flipped, damage_missing, damage_truncated
from tests.seqtok_core.training.toy import train_toy

PART = "part_00000_of_00001.safetensors"
EVERY = {"images": 96, "checkpoint_every": 24}  # steps 3, 6, 9, 12


def whole(run: Path) -> list[str]:
    return [path.name for path in checkpoint.all_in(run / "checkpoints") if checkpoint.problem_of(path) is None]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run with checkpoints of steps 3, 6, 9 and, after a stop, 10."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Preempted):
        train_toy(folder, stop_after=10, keep=9, **EVERY)
    return folder


@pytest.mark.parametrize("damage", [damage_missing, damage_truncated, damage_flipped])
def test_a_damaged_newest_does_not_push_good_ones_out(damage, stopped, tmp_path, caplog):
    """Two damaged ones are newer than step 6, from which the run goes on to a stop after step 8."""
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    for step in (9, 10):
        damage(run / "checkpoints" / checkpoint.name_of(step) / PART)
    with caplog.at_level(logging.WARNING), pytest.raises(Preempted, match="after step 8, everything saved"):
        train_toy(run, stop_after=8, keep=2, **EVERY)
    assert whole(run) == ["step_00000006", "step_00000008"]
    assert "does not count" in caplog.text
    assert train_toy(run, keep=1, **EVERY).resumed_from == "step_00000008"
    assert [path.name for path in checkpoint.all_in(run / "checkpoints")] == whole(run) == ["step_00000012"]


def test_what_was_just_written_stays_whatever_is_newer(tmp_path):
    for step in (3, 6, 9):
        (tmp_path / checkpoint.name_of(step)).mkdir()
    keeper = Keeper(Keep(newest=1))
    keeper._verdicts = {tmp_path / checkpoint.name_of(step): ((), None) for step in (3, 6, 9)}  # all whole
    keeper.tidy(tmp_path, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000006", "step_00000009"]


def test_one_that_is_damaged_while_the_run_goes_on_does_not_count_either(tmp_path, monkeypatch):
    write, written = checkpoint.write_checkpoint, []

    def damaging(job, world, gather):
        problem = write(job, world, gather)
        if not written:
            damage_flipped(job.folder / checkpoint.name_of(job.step) / PART)
        written.append(job.step)
        return problem

    monkeypatch.setattr(checkpoint, "write_checkpoint", damaging)
    train_toy(tmp_path, keep=3, **{**EVERY, "images": 72})
    assert written == [3, 6, 9]
    assert [path.name for path in checkpoint.all_in(tmp_path / "checkpoints")] == [
        "step_00000003", "step_00000006", "step_00000009",
    ]  # fmt: skip
    assert whole(tmp_path) == ["step_00000006", "step_00000009"]


def test_a_checkpoint_is_hashed_once(tmp_path, monkeypatch):
    asked: list[str] = []
    problem_of = checkpoint.problem_of
    monkeypatch.setattr(checkpoint, "problem_of", lambda path, *a, **k: asked.append(path.name) or problem_of(path))
    train_toy(tmp_path, keep=3, **EVERY)
    assert asked == []  # those of this run are whole as they were written


def test_foreign_files_and_links_among_checkpoints_end_no_save(stopped, tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(stopped, run)
    there = run / "checkpoints"
    (there / "notes.tmp").write_text("mine")
    (there / "other.tmp").mkdir()
    (there / "step_00000004.tmp").write_text("a file where a folder was")
    os.symlink(tmp_path / "nowhere", there / "step_00000005.old.tmp")
    shutil.move(there / "step_00000003", elsewhere)
    os.symlink(elsewhere, there / "step_00000003")
    assert train_toy(run, keep=1, **EVERY).resumed_from == "step_00000010"
    assert sorted(path.name for path in there.iterdir()) == ["notes.tmp", "other.tmp", "step_00000012"]
    assert (there / "notes.tmp").read_text() == "mine"
    assert checkpoint.problem_of(elsewhere) is None  # behind the link nothing was removed


def test_an_old_checkpoint_that_cannot_be_removed_is_a_warning_at_every_save(tmp_path, monkeypatch, caplog):
    def busy(path, *args, **kwargs):
        raise OSError(39, "Directory not empty", str(path))  # as NFS says while somebody reads

    monkeypatch.setattr(checkpoint.shutil, "rmtree", busy)
    with caplog.at_level(logging.WARNING):
        assert train_toy(tmp_path, keep=1, **EVERY).steps == 12
    assert "step_00000003: an old checkpoint that cannot be removed (Directory not empty)" in caplog.text
    assert "step_00000003.old.tmp: a leftover that cannot be removed" in caplog.text
    assert whole(tmp_path) == ["step_00000012"]
