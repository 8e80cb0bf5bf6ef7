"""Checkpoints: complete or absent, kept by count, verified, and never unpickled unseen."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import torch

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError, SeqtokError, StorageError
from seqtok_core.training import checkpoint
from tests.training_toy import train_toy

EVERY = {"checkpoint_every": 24}


@pytest.fixture
def run(tmp_path) -> Path:
    train_toy(tmp_path / "run", images=72, keep=2, **EVERY)
    return tmp_path / "run"


def again(folder: Path, **settings: object):
    return train_toy(folder, images=72, keep=2, **{**EVERY, **settings})


def names(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def test_the_newest_are_kept(run):
    assert names(run) == ["step_00000006", "step_00000009"]


def damage_missing(path: Path) -> None:
    path.unlink()


def damage_truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage_flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [damage_missing, damage_truncated, damage_flipped])
def test_a_damaged_newest_checkpoint_is_left_with_a_warning_and_refused_by_name(damage, run, caplog):
    newest = run / "checkpoints" / "step_00000009"
    damage(newest / "mp_rank_00_model_states.pt")
    with pytest.raises(DataError, match=r"mp_rank_00_model_states\.pt"):
        again(run, resume=str(newest))
    with caplog.at_level(logging.WARNING):
        assert again(run).resumed_from == "step_00000006"
    assert "step_00000009" in caplog.text
    checkpoint.verify(newest)  # made anew on the way


def test_a_damaged_manifest_counts_as_damage(run):
    (run / "checkpoints" / "step_00000009" / "manifest.json").write_text("{")
    assert again(run).resumed_from == "step_00000006"


def test_an_unfinished_checkpoint_is_none_and_is_swept(run):
    os.rename(run / "checkpoints" / "step_00000009", run / "checkpoints" / "step_00000009.tmp")
    (run / "checkpoints" / "step_00000008.tmp").mkdir()
    assert again(run).resumed_from == "step_00000006"
    assert names(run) == ["step_00000006", "step_00000009"]


def test_a_pickle_that_would_run_something_is_refused(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    newest = run / "checkpoints" / "step_00000009"
    file = newest / "mp_rank_00_model_states.pt"
    torch.save({"module": Evil()}, file)
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["files"][file.name] = {"bytes": file.stat().st_size, "sha256": files.sha256_file(file)}
    files.write_json(newest / "manifest.json", manifest)
    with pytest.raises(DataError, match=r"system"):
        again(run, resume=str(newest))
    assert not (tmp_path / "executed").exists()


def test_a_missing_checkpoint_and_a_newer_format_are_named(run):
    with pytest.raises(DataError, match="no such checkpoint"):
        again(run, resume=str(run / "checkpoints" / "step_00000099"))
    path = run / "checkpoints" / "step_00000009" / "manifest.json"
    files.write_json(path, {**json.loads(path.read_text()), "format": 99})
    with pytest.raises(MismatchError, match="format 99"):
        again(run, resume=str(path.parent))


def test_going_back_asks_to_remove_what_is_newer(run):
    with pytest.raises(ConfigError, match="step_00000009 in the same run"):
        again(run, resume=str(run / "checkpoints" / "step_00000006"))


def test_another_zero_stage_is_refused_in_one_sentence(run, tmp_path):
    source = run / "checkpoints" / "step_00000009"
    with pytest.raises(MismatchError, match="zero_stage=0, this run has 1 with zero_stage=1"):
        again(tmp_path / "other", zero_stage=1, resume=str(source))


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_full_disk_leaves_the_last_checkpoint(stage, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQTOK_FAULTS", "checkpoint.before_hash=enospc")
    monkeypatch.setattr("seqtok_core.foundation.faults._visits", __import__("collections").Counter({}))
    monkeypatch.setenv("SEQTOK_FAULTS", "checkpoint.before_hash:2=enospc")
    with pytest.raises(StorageError, match="disk is full"):
        again(tmp_path, zero_stage=stage)
    assert names(tmp_path) == ["step_00000003"]
    monkeypatch.delenv("SEQTOK_FAULTS")
    assert again(tmp_path, zero_stage=stage).resumed_from == "step_00000003"


def test_a_write_that_breaks_off_inside_torch_save_is_a_full_disk(tmp_path, monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos 69248 vs 69136")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(StorageError, match="is the disk full"):
        again(tmp_path)
    assert names(tmp_path) == []


def test_two_runs_on_one_folder(tmp_path):
    with files.folder_lock(tmp_path), pytest.raises(SeqtokError, match=f"in use by process {os.getpid()}"):
        again(tmp_path)
    again(tmp_path)


def test_a_used_folder_with_other_settings_names_all_of_them(run):
    with pytest.raises(MismatchError) as caught:
        again(run, lr=0.5, clip=None)
    assert "train.clip: 1.0 there, None here; train.lr: 0.003 there, 0.5 here" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    again(run, threads=1)  # does not change what is computed


def test_never_resume_overwrite_and_foreign_folders(run, tmp_path):
    with pytest.raises(ConfigError, match="--overwrite"):
        again(run, resume="never")
    (run / "notes.txt").write_text("mine")
    assert again(run, overwrite=True, lr=0.5).resumed_from is None
    assert (run / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_text("x")
    with pytest.raises(ConfigError, match=r"holiday\.jpg"):
        again(foreign)
