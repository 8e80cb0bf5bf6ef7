"""Runs that are asked to stop, lose a process, hang, or meet another run: each ends soon, says why, and continues."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from seqtok_core.foundation.errors import SeqtokError
from seqtok_core.training import World
from seqtok_core.training.processes.stopping import StopRequest
from seqtok_core.training.processes.watch import Watch
from tests.seqtok_core.training import toy as training_toy
from tests.seqtok_core.training.toy import DEFAULTS, in_child, lines, start_child, train_toy, weights
from tests.slow import rest_slow

LONG = {"images": 400_000, "checkpoint_every": 80}  # ends when it is told to


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *command], env=environment, **streams, **options)


def toy(folder: Path, **settings: Any) -> list[str]:
    return [training_toy.__file__, json.dumps([{"folder": str(folder), **settings}])]


class Pair:
    """Two processes of one run, without a launcher that would stop one for the other."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self._logs = [folder.parent / f"{folder.name}_said_{rank}.txt" for rank in "01"]
        self.processes = [
            start_child({"folder": str(folder), **settings}, {**shared, "RANK": rank, "LOCAL_RANK": rank}, log)
            for rank, log in zip("01", self._logs, strict=True)
        ]

    def end(self, seconds: float = 60) -> tuple[list[int | None], list[str]]:
        """Exit statuses and what was said, when both have ended by themselves."""
        for process in self.processes:
            process.join(seconds)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes, [log.read_text() for log in self._logs]


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


def has_checkpoint(folder: Path) -> bool:
    return any(path.suffix != ".tmp" for path in (folder / "checkpoints").glob("step_*"))


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that has the folder among its words."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


# --- asked to stop


@pytest.mark.parametrize("name", rest_slow(["SIGHUP", "SIGUSR1"]))
def test_a_signal_to_one_of_two_stops_both_after_the_same_step(name, tmp_path):
    folder = tmp_path / "run"
    pair = Pair(folder, **LONG)
    wait_for(lambda: has_checkpoint(folder))
    os.kill(pair.processes[1].pid, signal.Signals[name])
    codes, said = pair.end()
    assert codes == [75, 75], said
    note = json.loads((folder / "preempted.json").read_text())
    assert note["signal"] == name
    assert (folder / "checkpoints" / f"step_{note['step']:08d}").is_dir()
    assert all(f"stopped by {name} after step {note['step']}" in text for text in said)


def test_a_hang_up_is_ignored_where_nohup_asked_for_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.name is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_twice_is_one_request_and_a_later_one_ends_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("seqtok_core.training.processes.stopping.time.monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)  # of the terminal
        os.kill(os.getpid(), signal.SIGINT)  # passed on by the launcher
        assert stop.name == "SIGINT"
        now[0] += 10
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_sigterm_under_torchrun_with_loader_workers(whole_group, tmp_path):
    """To torchrun alone, and to its whole process group: workers included, and passed on a second time."""
    from data_pipelines.prepare.run import prepare
    from data_pipelines.prepare.settings import PrepareConfig
    from data_pipelines.reading.vocabulary import train_vocabulary
    from data_pipelines.sources.drawn import ScenesSource

    data, out = tmp_path / "data", tmp_path / "run"
    prepare({"train": ScenesSource("train", 200, 32)}, data, PrepareConfig(name="scenes", size=32))
    train_vocabulary(data, 400)
    config = Path(__file__).parents[3] / "configs" / "tiny-tokenizer.yaml"
    words = [f"data.folder={data}", f"out={out}", "data.loader.num_workers=2", "train.images=640000"]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launch += ["--rdzv-endpoint", "localhost:0", "-m", "seqtok", "tokenizer", "train", str(config), *words]
    running = start(launch, start_new_session=True)
    wait_for(lambda: has_checkpoint(out))
    (os.killpg if whole_group else os.kill)(running.pid, signal.SIGTERM)
    said = running.communicate(timeout=120)[0]
    note = json.loads((out / "preempted.json").read_text())
    assert note["signal"] == "SIGTERM", said[-3000:]
    assert (out / "checkpoints" / f"step_{note['step']:08d}").is_dir()
    assert running.returncode != 0
    wait_for(lambda: not processes_of(out), 30)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_the_launchers_end_is_a_request_to_stop(launcher, tmp_path):
    """kill -9 of torchrun's agent; SIGTERM to `deepspeed`, which leaves its helper and the workers running."""
    port = free_port()
    program = {
        "torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)],
        "deepspeed": ["deepspeed.launcher.runner", "--num_accelerators", "2", "--master_port", str(port)],
    }[launcher]
    running = start(["-m", *program, *toy(tmp_path / "run", **LONG)])
    wait_for(lambda: has_checkpoint(tmp_path / "run"))
    running.send_signal(signal.SIGKILL if launcher == "torchrun" else signal.SIGTERM)
    running.wait(60)
    wait_for(lambda: not processes_of(tmp_path / "run"), 60)
    note = json.loads((tmp_path / "run" / "preempted.json").read_text())
    assert note["signal"] == "the launcher's end"
    steps = {"images": (note["step"] + 3) * 8, "checkpoint_every": 80}
    assert note["step"] > 0
    again = start(["-m", *program, *toy(tmp_path / "other", **{**LONG, **steps})])  # the port is free again
    said = again.communicate(timeout=120)[0]
    assert again.returncode == 0, said[-2000:]


def test_only_a_launchers_end_counts(monkeypatch):
    """A run outlives the shell that began it; under torchrun the parent matters."""
    from seqtok_core.training.processes.watch import _launchers

    assert _launchers() == []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert [process.pid for process in _launchers()] == [os.getppid()]


# --- losing a process


@pytest.mark.parametrize("stage", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_process_stops_the_other_with_a_message(stage, tmp_path):
    pair, began = Pair(tmp_path / "run", faults="training.step@rank1:4=kill", zero_stage=stage), time.monotonic()
    codes, said = pair.end()
    assert time.monotonic() - began < 60
    assert codes == [1, -signal.SIGKILL]
    assert "process 0 of 2 has lost the others" in said[0]
    assert "The same command continues" in said[0]
    assert "Traceback" not in said[0]


@pytest.mark.parametrize("stage", [0, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (1, 2, 3))])
def test_too_many_bad_steps_of_one_process_end_both_and_name_all_samples(stage, tmp_path):
    folder = tmp_path / "run"
    codes, said = Pair(folder, faults="training.loss@rank1=nan", max_skipped=3, zero_stage=stage).end()
    assert codes == [1, 1], said
    assert all("no finite gradient in 3 steps in a row" in text for text in said)
    bad = json.loads((folder / "bad_batch.json").read_text())
    assert bad["step"] == 3
    assert sorted(bad["keys"]) == [f"2-{i}" for i in range(8)]


@pytest.mark.slow
def test_a_hanging_process_is_named_with_its_stack(tmp_path):
    folder = tmp_path / "run"
    codes, said = Pair(folder, faults="training.step@rank1:4=sleep", timeout_minutes=0.15).end(90)
    assert codes == [1, 1], said
    assert "process 1 of 2 hangs at faults.py" in said[1]
    assert "step 4" in said[1]
    stack = (folder / "hang_process_1.txt").read_text()
    assert "_act" in stack
    assert "run.py" in stack
    assert "waits for the others" in said[0] or "has lost the others" in said[0]
    assert train_toy(folder, timeout_minutes=30.0).steps == 12  # another limit is no other run


def test_the_watch_counts_progress_not_time(tmp_path, monkeypatch):
    ended: list[float] = []
    monkeypatch.setattr(Watch, "_end", lambda self: (ended.append(time.monotonic()), self._ended.set()))
    world = World(0, 1, 0, torch.device("cpu"))
    with Watch(world, tmp_path, 0.4, lambda name: None) as watch:
        for step in range(8):
            watch.beat("step", step)
            time.sleep(0.1)
        assert not ended
        wait_for(lambda: ended, 10)


def test_a_dead_loader_worker_ends_all_processes_with_one_message(tmp_path):
    """An error that one process has alone: it says so, and the other does not wait for it."""
    codes, said = Pair(tmp_path / "run", dying=True).end()
    assert codes == [1, 1], said
    assert "error: loader worker died (process 7)" in said[1]
    assert "has lost the others" in said[0]
    assert "Traceback" not in said[0] + said[1]


# --- two runs, a full disk, another clock


def test_a_second_run_is_refused_and_a_killed_owners_lock_is_free(tmp_path):
    first = start_child({"folder": str(tmp_path), "faults": "training.step:2=sleep"})
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and "2" in (tmp_path / "metrics.jsonl").read_text())
    with pytest.raises(SeqtokError) as caught:
        train_toy(tmp_path)
    assert f"in use by process {first.pid} on {socket.gethostname()} since 2" in str(caught.value)
    first.kill()
    first.join()
    assert train_toy(tmp_path).steps == 12


def test_a_disk_that_fills_with_metrics_ends_all_with_what_is_needed(tmp_path):
    codes, said = Pair(tmp_path / "run", faults="metrics.write:7=enospc", checkpoint_every=24).end()
    assert codes == [3, 3], said
    for text in said:
        assert "metrics.jsonl: the disk is full" in text
        assert "step_00000006 is complete, and the next checkpoint needs" in text
        assert "Traceback" not in text
    assert in_child(tmp_path / "alone", faults="metrics.write:2=enospc") == 3


def test_a_disk_that_fills_with_samples_or_events_leaves_the_checkpoint(tmp_path, monkeypatch):
    from tensorboard.summary.writer.record_writer import RecordWriter

    from seqtok_core.foundation.errors import StorageError
    from seqtok_core.training import TrainConfig, train
    from tests.seqtok_core.training.toy import ToyLoader, ToyObjective

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    config = TrainConfig(**{**DEFAULTS, "checkpoint_every": 24, "sample_every": 40})
    with pytest.raises(StorageError, match=r"samples.*disk is full.*step_00000003 is complete.*needs [\d.]+ MiB"):
        train(ToyObjective(), ToyLoader(8, 8, 0, 1), config, tmp_path, resolved={}, on_sample=full)
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", full)
        patch.setattr("threading.excepthook", lambda args: None)
        with pytest.raises(StorageError, match="disk is full"):
            train(ToyObjective(), ToyLoader(8, 8, 0, 1), config, tmp_path, resolved={})
    result = train(ToyObjective(), ToyLoader(8, 8, 0, 1), config, tmp_path, resolved={})
    assert result.steps == 12


def test_a_clock_that_runs_backwards_and_another_host_change_nothing(tmp_path, monkeypatch):
    settings = {"checkpoint_every": 48, "keep": 9}
    train_toy(tmp_path / "a", **settings)
    times = iter(range(2_000_000_000, 0, -3600))
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: float(next(times)))
        patch.setattr("platform.node", lambda: "elsewhere")
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        patch.setenv("TZ", "Pacific/Kiritimati")
        train_toy(tmp_path / "b", **settings)
        import shutil

        shutil.rmtree(tmp_path / "b" / "checkpoints" / "step_00000012")
        patch.setattr("platform.node", lambda: "a third")
        assert train_toy(tmp_path / "b", **settings).resumed_from == "step_00000006"
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    for name, value in weights(tmp_path / "a").items():
        assert torch.equal(value, weights(tmp_path / "b")[name])
    for row in map(json.loads, (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()):
        assert row["images_per_s"] > 0
        assert row["seconds"] >= 0
        assert 0 <= row["data_wait"] <= 1
        assert row["memory_gb"] > 0
    environment = json.loads((tmp_path / "b" / "environment.json").read_text())
    assert environment["hosts"] == ["a third"]
    assert environment["starts"] == 2
