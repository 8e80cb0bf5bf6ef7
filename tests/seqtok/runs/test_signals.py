"""`seqtok … train` as a scheduler runs it: a signal at any moment ends it with 75, and the same command continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seqtok_core.training.journal.environment import starts
from tests.seqtok.commands.test_checkpoint_commands import make_data, settings
from tests.seqtok.commands.test_commands import TINY

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "scenes", 32)


def start(data: Path, out: Path, *words: str, faults: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "seqtok", "tokenizer", "train", str(TINY / "tiny-tokenizer.yaml")]
    command += [*settings(data, out), "train.sample_every=null", *words]
    environment = {**os.environ, "SEQTOK_FAULTS": faults, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **streams)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.02)


def loads(pid: int, library: str) -> bool:
    """Whether a process has come so far that it holds a library's file open or mapped."""
    try:
        return library in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def stopped(running: subprocess.Popen[str], number: signal.Signals) -> str:
    running.send_signal(number)
    said = running.communicate(timeout=120)[0]
    assert running.returncode == 75, said
    assert said.count("Traceback") == 0, said
    return said


# The command line, where a signal comes as the first module of ours below it is looked for.
EARLY = """
import os, signal, sys

class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == "seqtok_core":
            os.kill(os.getpid(), int(os.environ["SENT"]))

sys.meta_path.insert(0, Sender())
from seqtok.__main__ import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_before_anything_of_ours_is_loaded(number, data, tmp_path):
    out = tmp_path / "run"
    words = ["tokenizer", "train", str(TINY / "tiny-tokenizer.yaml"), *settings(data, out)]
    environment = {**os.environ, "SENT": str(int(number))}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-c", EARLY, *words], **options)
    assert (done.returncode, done.stderr.count("\n")) == (75, 1), done.stderr
    assert json.loads((out / "preempted.json").read_text())["signal"] == number.name


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks the kernel how far a process has come")
def test_a_signal_while_libraries_are_loaded_or_data_opened(data, tmp_path):
    out = tmp_path / "run"
    for library, number in [("libtorch", signal.SIGTERM), ("sentencepiece", signal.SIGUSR1)]:
        running = start(data, out)
        wait_for(lambda running=running, library=library: loads(running.pid, library))
        assert "before the first step" in stopped(running, number)
        assert json.loads((out / "preempted.json").read_text())["signal"] == number.name
    again = start(data, out, "train.images=8")  # a start that fails takes the word away
    again.communicate(timeout=120)
    assert again.returncode == 2
    assert not (out / "preempted.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks the kernel how far a process has come")
def test_a_signal_while_the_model_is_written(data, tmp_path):
    """With --overwrite in the command, as a job's script may have it: what is there is its own."""
    out, words = tmp_path / "run", ["--overwrite"]
    for number in (1, 2):
        running = start(data, out, *words, faults="training.model=sleep")
        wait_for(lambda number=number: (out / "checkpoints" / "step_00000008").is_dir() and starts(out) == number)
        said = stopped(running, signal.SIGTERM)
        assert "start the same command again to continue" in said
        assert (out / "preempted.json").is_file()
    last = start(data, out, *words)
    said = last.communicate(timeout=120)[0]
    assert last.returncode == 0, said
    assert "so it continues; --resume never begins it anew" in said
    assert "last from step_00000008" in said
    assert (out / "model" / "config.json").is_file()
    assert not (out / "preempted.json").exists()
