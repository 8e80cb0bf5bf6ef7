"""kill -9 at twenty random moments of a real command line: the same command, started again, ends in the same bytes.

The moments are drawn from a fixed seed, as parts of the time that an undisturbed run takes from its first file on:
before it there is nothing to lose. Now the command alone is killed, now its whole group. Where a start ends before its
moment, the next one begins in a new folder: all stages are met, early and late.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.seqtok.export import toy
from tests.seqtok.runs.test_chain import CONFIG, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 20
SMALL = ["train=300", "test=64", "prompts=4", "reader.images=64", "reader.scenes=64"]
DEMO = ["demo", "--config", CONFIG, "--out", "made", *SMALL]
# They hold a clock, or are added to by every start; of a checkpoint the parts are compared.
CLOCKS = ("run.lock", "run.json", "environment.json", "stages.json", "state.json", "manifest.json", "report.html")


def start(place: Path, *words: object) -> subprocess.Popen[bytes]:
    """The command, in a process group of its own, writing into `place`/made; the name is the same for all."""
    place.mkdir(exist_ok=True)
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    said = (place / "said.txt").open("ab")
    command = [sys.executable, "-m", "seqtok", *map(str, words)]
    with said:
        return subprocess.Popen(
            command, cwd=place, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_for_work(running: subprocess.Popen[bytes], place: Path, files: str) -> None:
    """Until one of `files`, a pattern below made, is new, or the command ends."""
    before = set(_files(place, files))
    while running.poll() is None and set(_files(place, files)) <= before:
        time.sleep(0.005)


def _files(place: Path, pattern: str) -> Iterator[tuple[Path, int]]:
    for path in (place / "made").glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            yield path, path.stat().st_mtime_ns


def finish(place: Path, words: list[object], files: str) -> float:
    """Seconds from the first of `files` to the command's good end, which leaves none of its processes."""
    running = start(place, *words)
    wait_for_work(running, place, files)
    began = time.monotonic()
    assert running.wait(timeout=900) == 0, (place / "said.txt").read_text()[-3000:]
    gone(running.pid)
    return time.monotonic() - began


def gone(group: int) -> None:
    """Wait for the end of what a command that was killed alone has started."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a process outlives its command by a minute")


def killed(place: Path, words: list[object], files: str, seed: int) -> list[Path]:
    """A folder that was not disturbed, and those of commands that came to their end, of which KILLS starts were killed.
    The next start does not wait for what a command that was killed alone leaves running."""
    seconds = finish(place / "whole", words, files)
    dice, places, moments, groups = random.Random(seed), [place / "0"], [], []
    while len(moments) < KILLS:
        moment, alone = dice.uniform(0, seconds), dice.random() < 0.5
        running = start(places[-1], *words)
        wait_for_work(running, places[-1], files)
        try:
            assert running.wait(timeout=moment) == 0, (places[-1] / "said.txt").read_text()[-3000:]
            places.append(place / str(len(places)))
        except subprocess.TimeoutExpired:
            (os.kill if alone else os.killpg)(running.pid, signal.SIGKILL)
            running.wait()
            moments.append(round(moment, 1))
        groups.append(running.pid)
    finish(places[-1], words, files)
    for group in groups:
        gone(group)
    print(f"undisturbed {seconds:.1f} s; {len(places)} folders; killed {moments} s after the first file")
    return [place / "whole", *places]


def without_times(value: Any) -> Any:
    """Results but for seconds, images per second and memory."""
    if not isinstance(value, dict):
        return value
    timed = ("seconds", "images_per_second", "peak memory")
    return {name: without_times(part) for name, part in value.items() if name not in timed}


def left_of(made: Path) -> dict[str, Any]:
    """What a command leaves, by name: bytes, but clocks apart; of folders' logs the name alone."""
    content: dict[str, Any] = {}
    for path in sorted(path for path in made.rglob("*") if path.is_file()):
        name = str(path.relative_to(made))
        if path.parent.name == "tensorboard":
            assert path.name.startswith("events.out.tfevents."), name
        elif path.name == "results.json":
            content[name] = without_times(json.loads(path.read_text()))
        elif path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            content[name] = [{key: line[key] for key in ("step", "loss", "grad_norm")} for line in lines]
        elif path.name in CLOCKS:
            content[name] = None
        else:
            content[name] = path.read_bytes()
    return content


def same(places: list[Path]) -> None:
    wanted = left_of(places[0] / "made")
    for place in places:
        found = left_of(place / "made")
        assert found.keys() == wanted.keys(), "left over, or missing"
        assert [name for name in wanted if found[name] != wanted[name]] == [], place
        assert {path.name for path in place.iterdir()} == {"made", "said.txt"}, "nothing is left beside it"
        assert "Traceback" not in (place / "said.txt").read_text()


def test_a_demo(tmp_path: Path):
    same(killed(tmp_path, DEMO, "*/*", seed=0))


def test_an_export_of_latents_with_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toy, "COUNTS", {"test": 100, "train": 300})
    data = toy.scenes(tmp_path / "scenes")
    words = ["tokenizer", "export", toy.saved_tokenizer(tmp_path / "tokenizer", data), data, "made", "--processes", 2]
    same(killed(tmp_path, words, "*.tar*", seed=1))
