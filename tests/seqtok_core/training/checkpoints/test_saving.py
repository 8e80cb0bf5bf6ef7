"""Saving in the background: the same files, one at a time, nothing lost; and places that cannot be written."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from seqtok_core.foundation.errors import Preempted, StorageError
from seqtok_core.training.checkpoints import checkpoint, parts
from tests.seqtok_core.training.toy import in_child, lines, start_child, train_toy, under_torchrun, weights
from tests.slow import rest_slow

BEHIND = {"background_save": True, "checkpoint_every": 24}


def part_hashes(run: Path) -> dict[int, list[str]]:
    """What is equal between two equal runs: every part of every checkpoint (state.json holds a clock)."""
    manifests = [checkpoint.read_checkpoint_manifest(path) for path in checkpoint.all_in(run / "checkpoints")]
    return {m["step"]: [m["files"][n]["sha256"] for n in sorted(m["files"]) if "part" in n] for m in manifests}


@pytest.fixture
def slow_disk(monkeypatch) -> list[tuple[str, float]]:
    """Every part takes a third of a second; what happened when."""
    events: list[tuple[str, float]] = []
    write = parts.write_part

    def slowly(path: Path, pieces: dict, rank: int = 0) -> dict:
        assert threading.current_thread() is not threading.main_thread()
        events.append(("begin", time.monotonic()))
        time.sleep(0.3)
        entry = write(path, pieces, rank)
        events.append(("end", time.monotonic()))
        return entry

    monkeypatch.setattr(parts, "write_part", slowly)
    return events


@pytest.fixture(scope="module")
def front(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    train_toy(folder, keep=9, checkpoint_every=24)
    return folder


def test_the_files_are_those_of_the_foreground_and_come_one_at_a_time(front, slow_disk, tmp_path):
    """Training goes on meanwhile: the weights that are written are those of the step they are named after."""
    train_toy(tmp_path, keep=9, **BEHIND)
    assert [name for name, _ in slow_disk] == ["begin", "end"] * 4
    assert part_hashes(tmp_path) == part_hashes(front)
    assert len(part_hashes(front)) == 4
    assert lines(tmp_path) == lines(front)


def test_a_stop_waits_for_what_is_in_flight(slow_disk, tmp_path):
    with pytest.raises(Preempted):
        train_toy(tmp_path, stop_after=4, **BEHIND)
    assert [p.name for p in checkpoint.all_in(tmp_path / "checkpoints")] == ["step_00000003", "step_00000004"]
    assert [name for name, _ in slow_disk] == ["begin", "end"] * 2


def test_a_failure_ends_the_run_at_its_next_step(monkeypatch, tmp_path):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts, "write_part", full)
    with pytest.raises(StorageError, match="disk is full"):
        train_toy(tmp_path, images=8000, log_every=1, **BEHIND)
    assert lines(tmp_path)[-1]["step"] < 900
    assert not checkpoint.all_in(tmp_path / "checkpoints")


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_on_one_of_two_processes_stops_both(background, tmp_path):
    """The second process alone fails; both end with the message, and the earlier checkpoint stays."""
    job = {"folder": str(tmp_path), "checkpoint_every": 24, "background_save": background, "images": 4000}
    done = under_torchrun([{**job, "faults": "checkpoint.in_part@rank1:2=enospc"}])
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 2, done.stderr[-3000:]
    assert "the disk is full" in done.stderr
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_00000003"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_process_killed_while_it_saves_in_the_background(stage, tmp_path):
    job = {"folder": str(tmp_path), "zero_stage": stage, **BEHIND}
    assert under_torchrun([{**job, "faults": "checkpoint.in_part@rank1:2=kill"}]).returncode != 0
    found = [p.name for p in checkpoint.all_in(tmp_path / "checkpoints")]
    assert found == ["step_00000003"]
    assert under_torchrun([job]).returncode == 0
    whole = {**job, "folder": str(tmp_path / "whole")}
    assert under_torchrun([whole]).returncode == 0
    assert part_hashes(tmp_path)[12] == part_hashes(tmp_path / "whole")[12]


def test_a_file_that_may_not_grow_names_its_limit(tmp_path):
    """A real limit of the system, not an injected one: exit status 3, nothing half-written, and no word of the disk."""
    child = start_child({"folder": str(tmp_path / "run"), "file_bytes": 60_000}, said=tmp_path / "said.txt")
    child.join(120)
    assert child.exitcode == 3
    message = (tmp_path / "said.txt").read_text()
    assert "(59 KiB, RLIMIT_FSIZE)" in message
    assert "disk" not in message
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert in_child(tmp_path / "run") == 0


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a file system that nobody can write to")
def test_a_folder_that_cannot_be_written_is_refused_before_training():
    with pytest.raises(StorageError, match="cannot be written"):
        train_toy(Path("/sys/kernel/seqtok"))


@pytest.mark.parametrize("background", rest_slow([True, False]))
def test_clock_locale_umask_and_path_change_no_byte(background, tmp_path):
    settings = {"checkpoint_every": 24, "background_save": background}
    train_toy(tmp_path / "plain", **settings)
    other = tmp_path / "Ünï côde 名 with spaces"
    changed = {"TZ": "Pacific/Kiritimati", "LC_ALL": "tr_TR.UTF-8", "LANG": "C", "PYTHONHASHSEED": "7"}
    assert in_child(other, environment=changed, umask=0o077, **settings) == 0
    assert part_hashes(other) == part_hashes(tmp_path / "plain")
    for name, value in weights(tmp_path / "plain").items():
        assert torch.equal(weights(other)[name], value)
    assert lines(other) == lines(tmp_path / "plain")
    assert json.loads((other / "environment.json").read_text())["started"].endswith("+1400")
    assert in_child(other, environment={"TZ": "UTC"}, **settings) == 0  # continued elsewhere: nothing to do


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", [0, 2])
def test_killed_at_twenty_random_moments(stage, tmp_path):
    """200 steps, a checkpoint every 10 in the background; one command, started again until it ends."""
    settings = {"images": 1600, "checkpoint_every": 80, "zero_stage": stage, "background_save": True, "log_every": 1}
    train_toy(tmp_path / "whole", **settings)
    chance, reached = random.Random(stage), []
    for _ in range(20):
        moment = (chance.randint(1, 14), chance.uniform(0.0, 0.03))
        assert in_child(tmp_path / "killed", kill_after=moment, **settings) == -signal.SIGKILL
        reached.append(max([0, *map(checkpoint.step_of, checkpoint.all_in(tmp_path / "killed" / "checkpoints"))]))
    assert in_child(tmp_path / "killed", **settings) == 0
    print(f"stage {stage}: continued from {reached}")
    assert 30 <= reached[-1] < 200
    assert part_hashes(tmp_path / "killed")[200] == part_hashes(tmp_path / "whole")[200]
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
