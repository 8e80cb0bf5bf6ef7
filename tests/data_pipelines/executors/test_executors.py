"""Executors: every task once, errors unchanged, dead workers replaced, nobody left behind; no torch in a worker."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time

import psutil
import pytest

from data_pipelines.executors import ray as ray_engine
from data_pipelines.executors.run import run_tasks
from data_pipelines.executors.task import TRIES, attempt
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.drawn import ScenesSource
from seqtok_core.foundation.errors import DataError, SeqtokError, StorageError
from tests.data_pipelines.executors.tasks import square
from tests.data_pipelines.prepare.preparation import ROOT
from tests.data_pipelines.toy import content, foreign_members, jsonl_folder, write_tar


class Counting(list):
    """Tasks that know how many of them have been taken."""

    taken = 0

    def __iter__(self):
        for task in super().__iter__():
            self.taken += 1
            yield task


class Untransportable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


class Stubborn(Exception):
    def __reduce__(self):
        raise TypeError("does not travel")


def children() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_task_is_done_once_and_few_are_handed_out_at_a_time(processes, tmp_path):
    tasks = Counting(range(12))
    ahead, results, started = 0, [], []
    for result in run_tasks(square, {"folder": tmp_path}, tasks, processes, on_start=started.append):
        ahead = max(ahead, tasks.taken - len(results))
        results.append(result)
    assert sorted(results) == [n * n for n in range(12)]
    assert started == list(range(12))
    assert ahead <= processes
    assert not children()


def test_a_task_whose_worker_is_killed_is_done_again(tmp_path):
    shared = {"folder": tmp_path, "deaths": {3: 2, 7: 1}}
    lost: list[int] = []
    assert sorted(run_tasks(square, shared, range(12), 2, on_lost=lost.append)) == [n * n for n in range(12)]
    assert sorted(lost) == [3, 3, 7]


def test_a_task_that_kills_every_worker_is_named(tmp_path):
    with pytest.raises(SeqtokError, match=r"^5: its worker died 3 times \(signal SIGKILL; out of memory\?\)"):
        list(run_tasks(square, {"folder": tmp_path, "deaths": {5: 99}}, range(12), 2))
    assert len(list(tmp_path.glob("5-*"))) == TRIES
    assert not children()


def test_errors_of_ours_cross_unchanged_and_others_say_where_they_were(tmp_path):
    for error in (StorageError("full"), DataError("bad")):
        with pytest.raises(type(error)) as caught:
            list(run_tasks(square, {"folder": tmp_path, "errors": {4: error}}, range(6), 2))
        assert str(caught.value) == str(error)
        assert caught.value.exit_code == error.exit_code
    with pytest.raises(ZeroDivisionError) as caught:
        list(run_tasks(square, {"folder": tmp_path, "errors": {4: ZeroDivisionError("x")}}, range(6), 2))
    assert "in square" in "".join(caught.value.__notes__)


def test_an_error_that_cannot_travel_is_still_told(tmp_path):
    for error in (Untransportable("a", "b"), Stubborn("c")):
        done, found = attempt(square, {"folder": tmp_path, "errors": {1: error}}, 1)
        assert not done
        assert type(error).__name__ in str(pickle.loads(pickle.dumps(found)))


def test_closing_early_ends_the_workers(tmp_path):
    running = run_tasks(square, {"folder": tmp_path}, range(1000), 2)
    next(running)
    assert len(children()) == 2
    running.close()
    assert not children()


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """They are in the middle of tasks that would last an hour."""
    code = (
        "import sys, time\n"
        "from data_pipelines.executors.run import run_tasks\n"
        "from tests.data_pipelines.executors.tasks import stall\n"
        "if __name__ == '__main__':\n"
        "    list(run_tasks(stall, sys.argv[1], range(2), 2))\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("at-*"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    workers = [psutil.Process(int(path.name[3:])) for path in tmp_path.glob("at-*")]
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(workers, timeout=20)[1]


def test_a_worker_needs_no_torch(tmp_path):
    """Its import would cost more than most tasks; nor may any task of another kind of source bring it in."""
    jsonl_folder(tmp_path / "folder")
    write_tar(tmp_path / "tars/train-0.tar", foreign_members(0, 4))
    code = f"""
import sys
from pathlib import Path
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.drawn import ScenesSource
import data_pipelines.executors.processes
root = Path({str(tmp_path)!r})
sources = [open_source(root / name, SourceConfig()) for name in ("folder", "tars")]
sources.append({{"train": ScenesSource("train", 3, 8)}})
for number, source in enumerate(sources):
    prepare(source, root / str(number), PrepareConfig(size=8))
heavy = {{"torch", "webdataset", "ray", "deepspeed", "torchvision", "open_clip"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_missing_ray_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SeqtokError, match=r"^`engine=ray` needs Ray, .*pip install seqtok\[ray\]$"):
        list(run_tasks(square, {"folder": tmp_path}, range(3), ray_address="local"))


def test_a_node_with_other_software_or_without_the_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = {"folder": str(tmp_path), "versions": ray_engine._versions(), "run": "x"}
    ray_engine._check_node(good)
    with pytest.raises(SeqtokError, match=r"pillow .* instead of 1\.0"):
        ray_engine._check_node({**good, "versions": {**good["versions"], "pillow": "1.0"}})
    with pytest.raises(SeqtokError, match=r"does not see .*absent"):
        ray_engine._check_node({**good, "folder": str(tmp_path / "absent")})


@pytest.mark.parametrize("address", ["localhost:1", "ray://localhost:1", "localhost:no"])
def test_an_address_where_no_cluster_listens_is_one_message(address, tmp_path):
    with pytest.raises(SeqtokError, match="no Ray cluster at"):
        list(run_tasks(square, {"folder": tmp_path}, range(3), ray_address=address))


@pytest.fixture(scope="module")
def cluster():
    """A local Ray cluster that all tests of this file share; it is left alone by the runs that find it."""
    ray = pytest.importorskip("ray")
    with ray_engine._connected(ray, "local", 2):
        yield ray


def test_ray_does_every_task_once_and_replaces_dead_workers(cluster, tmp_path):
    tasks = Counting(range(30))
    shared = {"folder": tmp_path, "deaths": {3: 1, 7: 1}}
    ahead, results, lost = 0, [], []
    for result in run_tasks(square, shared, tasks, ray_address="local", on_lost=lost.append):
        ahead = max(ahead, tasks.taken - len(results))
        results.append(result)
    assert sorted(results) == [n * n for n in range(30)]
    assert sorted(lost) == [3, 7]
    assert ahead <= 2 * 2  # few are handed out at a time
    assert cluster.is_initialized()


@pytest.mark.slow
def test_ray_names_a_task_that_kills_every_worker_and_passes_errors_unchanged(cluster, tmp_path):
    with pytest.raises(SeqtokError, match=r"^5: its worker died 3 times"):
        list(run_tasks(square, {"folder": tmp_path, "deaths": {5: 99}}, range(12), ray_address="local"))
    assert len(list(tmp_path.glob("5-*"))) == TRIES
    with pytest.raises(StorageError) as caught:
        list(
            run_tasks(square, {"folder": tmp_path, "errors": {4: StorageError("full")}}, range(6), ray_address="local")
        )
    assert str(caught.value) == "full"


def test_ray_gives_the_bytes_of_one_process(cluster, tmp_path):
    sources = {"train": ScenesSource("train", 40, 8), "val": ScenesSource("val", 10, 8)}
    prepare(sources, tmp_path / "a", PrepareConfig(size=8, samples_per_shard=7))
    prepare(sources, tmp_path / "b", PrepareConfig(size=8, samples_per_shard=7, engine="ray", ray_address="local"))
    assert content(tmp_path / "a") == content(tmp_path / "b")
