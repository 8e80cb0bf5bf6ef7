"""Checkpoints: complete or absent, kept by count, verified, and never unpickled unseen."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seqtok_core.foundation import files, fingerprint
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError, SeqtokError, StorageError
from seqtok_core.training.checkpoints import checkpoint
from tests.seqtok_core.training.toy import ToyObjective, train_toy, weights

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


FILES = ["part_00000_of_00001.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [damage_missing, damage_truncated, damage_flipped])
def test_a_damaged_newest_checkpoint_is_left_with_a_warning_and_refused_by_name(damage, file, run, caplog):
    newest = run / "checkpoints" / "step_00000009"
    damage(newest / file)
    with pytest.raises(DataError, match=file):
        again(run, resume=str(newest))
    with caplog.at_level(logging.WARNING):
        assert again(run).resumed_from == "step_00000006"
    assert "step_00000009" in caplog.text
    checkpoint.verify_checkpoint(newest)  # made anew on the way


def test_when_all_are_damaged_the_run_is_not_begun_anew_in_silence(run):
    for path in checkpoint.all_in(run / "checkpoints"):
        damage_flipped(path / FILES[0])
    with pytest.raises(DataError, match=r"none of 2 checkpoints is whole .*`overwrite`"):
        again(run)


def test_a_file_latest_is_neither_written_nor_believed(run):
    assert not (run / "checkpoints" / "latest").exists()
    for content in ("", "step_00000099", "step_00000006"):
        (run / "checkpoints" / "latest").write_text(content)
        assert again(run).resumed_from == "step_00000009"


def test_an_unfinished_checkpoint_is_none_and_is_swept(run):
    os.rename(run / "checkpoints" / "step_00000009", run / "checkpoints" / "step_00000009.tmp")
    (run / "checkpoints" / "step_00000008.tmp").mkdir()
    assert again(run).resumed_from == "step_00000006"
    assert names(run) == ["step_00000006", "step_00000009"]


def reseal(checkpoint_folder: Path, **changes: object) -> None:
    """Give a forged checkpoint a manifest whose sizes and hashes are right."""
    path = checkpoint_folder / "manifest.json"
    manifest = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"} | changes
    for name in manifest["files"]:
        file = checkpoint_folder / name
        manifest["files"][name] = {"bytes": file.stat().st_size, "sha256": files.sha256_file(file)}
    files.write_json(path, {**manifest, "sha256": fingerprint.of_value(manifest)})


def test_a_pickle_is_never_loaded(run, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    newest = run / "checkpoints" / "step_00000009"
    for forged in FILES[:2]:
        kept = (newest / forged).read_bytes()
        torch.save({"module": Evil()}, newest / forged)
        reseal(newest)
        with pytest.raises(DataError, match=forged):
            again(run, resume=str(newest))
        (newest / forged).write_bytes(kept)
    assert not (tmp_path / "executed").exists()


def test_a_forged_part_that_lacks_values_or_names_no_pieces_is_refused(run):
    newest = run / "checkpoints" / "step_00000009"
    whole = load_file(newest / FILES[0])
    cut = {key: value[:-1] if "head.weight" in key else value for key, value in whole.items()}
    for forged, reason in [(cut, "head.weight has no values"), ({"words": torch.zeros(3)}, "not a part")]:
        save_file(forged, newest / FILES[0])
        reseal(newest)
        with pytest.raises(DataError, match=reason):
            again(run, resume=str(newest))


def test_a_missing_checkpoint_and_a_newer_format_are_named(run):
    with pytest.raises(DataError, match="no such checkpoint"):
        again(run, resume=str(run / "checkpoints" / "step_00000099"))


@pytest.mark.parametrize(
    ("version", "word"), [(1, "an earlier seqtok"), (99, "another seqtok"), (None, "another seqtok")]
)
def test_the_format_of_another_version_is_named(version, word, run):
    """By name, and by itself: the newest being unreadable is no reason to fall back in silence."""
    newest = run / "checkpoints" / "step_00000009"
    reseal(newest, format=version)
    for resume in (str(newest), "auto"):
        with pytest.raises(MismatchError, match=f"format {version} of {word}, this one reads format 2"):
            again(run, resume=resume)


def test_going_back_asks_to_remove_what_is_newer(run):
    with pytest.raises(ConfigError, match="step_00000009 in the same run"):
        again(run, resume=str(run / "checkpoints" / "step_00000006"))


def test_another_batch_is_refused_with_the_way_out(run, tmp_path):
    source = run / "checkpoints" / "step_00000009"
    with pytest.raises(MismatchError, match=r"9 steps of 8, this run has batches of 16.*export the weights"):
        train_toy(tmp_path / "other", images=160, batch=16, resume=str(source))


def test_another_optimizer_is_refused_with_the_way_out(run, tmp_path):
    source = run / "checkpoints" / "step_00000009"
    with pytest.raises(MismatchError, match=r"trained with exp_avg, this run needs exp_avg, exp_avg_sq, step.*muon_lr"):
        again(tmp_path / "other", muon_lr=None, resume=str(source))


def test_an_average_may_begin_later(run, tmp_path):
    again(tmp_path / "without", ema_decay=None)
    source = tmp_path / "without" / "checkpoints" / "step_00000006"
    assert again(tmp_path / "with", resume=str(source)).steps == 9


def test_other_samples_per_pass_are_the_same_data_and_a_warning(run, tmp_path, caplog):
    source = run / "checkpoints" / "step_00000006"
    with caplog.at_level(logging.WARNING):
        again(tmp_path / "other", micro_batch=4, resume=str(source))
    assert "saved with 8 samples per pass" in caplog.text


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_frozen_weights_come_from_the_checkpoint_too(stage, run, tmp_path, monkeypatch):
    """Whatever the objective of the continuation brings along: they may have come from another file."""

    class Other(ToyObjective):
        def __init__(self, pairs: bool = True) -> None:
            super().__init__(pairs)
            torch.nn.init.zeros_(self.frozen.weight)

    monkeypatch.setattr("tests.seqtok_core.training.toy.ToyObjective", Other)
    again(tmp_path / "other", resume=str(run / "checkpoints" / "step_00000006"), zero_stage=stage)
    for name, value in weights(run).items():
        torch.testing.assert_close(weights(tmp_path / "other")[name], value, rtol=0, atol=2e-5)


@pytest.fixture
def faults(monkeypatch):
    def plan(text: str) -> None:
        monkeypatch.setattr("seqtok_core.foundation.faults._visits", Counter())
        monkeypatch.setenv("SEQTOK_FAULTS", text)

    return plan


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_is_needed(stage, background, tmp_path, faults):
    settings = {"zero_stage": stage, "background_save": background}
    faults("checkpoint.in_part:2=enospc")
    with pytest.raises(
        StorageError, match=r"disk is full: 1\.\d MiB needed, \d+\.\d MiB free.*step_00000003"
    ) as caught:
        again(tmp_path, **settings)
    assert caught.value.exit_code == 3
    assert names(tmp_path) == ["step_00000003"]
    faults("")
    assert again(tmp_path, **settings).resumed_from == "step_00000003"


def test_a_disk_without_room_is_seen_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda path: 1 << 20)
    with pytest.raises(StorageError, match=r"needed, 1\.0 MiB free; .* the run begins anew"):
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
    assert "`overwrite`" in str(caught.value)
    again(run, threads=1)  # does not change what is computed


def test_never_resume_overwrite_and_foreign_folders(run, tmp_path):
    with pytest.raises(ConfigError, match="`overwrite`"):
        again(run, resume="never")
    (run / "notes.txt").write_text("mine")
    assert again(run, overwrite=True, lr=0.5).resumed_from is None
    assert (run / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "holiday.jpg").write_text("x")
    with pytest.raises(ConfigError, match=r"holiday\.jpg"):
        again(foreign)
