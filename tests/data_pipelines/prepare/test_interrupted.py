"""Preparations with several workers that are stopped, fail or meet each other; limits of bad samples; the pace."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_pipelines.executors.progress import Progress
from data_pipelines.executors.run import run_tasks
from data_pipelines.prepare.run import plan_of, prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.prepare.tasks import PrepareWork, do_task, make_tasks
from data_pipelines.shards.files import read_index
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.base import Bad
from data_pipelines.sources.drawn import ScenesSource
from seqtok.commands.data.view import Pace
from seqtok_core.foundation.errors import DataError, StorageError
from seqtok_core.foundation.files import folder_lock
from tests.data_pipelines.prepare.preparation import ROOT, SHARDS, run, start, wait_for_shards
from tests.data_pipelines.toy import content
from tests.slow import rest_slow


@dataclasses.dataclass(frozen=True)
class Spoiled(ScenesSource):
    """Drawn scenes, some of them bad or filtered out."""

    bad: frozenset[int] = frozenset()
    filtered: frozenset[int] = frozenset()

    def pairs(self, start, stop):
        for index, pair in enumerate(super().pairs(start, stop), start):
            if index in self.bad:
                yield Bad(f"sample {index}", "spoiled")
            elif index in self.filtered:
                yield Bad(f"sample {index}", "filtered: too small", filtered=True)
            else:
                yield pair


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """What an undisturbed preparation of one process leaves."""
    folder = tmp_path_factory.mktemp("whole") / "d"
    sources = {"train": ScenesSource("train", 300, 96), "val": ScenesSource("train", 60, 96)}
    prepare(sources, folder, PrepareConfig(name="s", size=96, samples_per_shard=15))
    assert len(list(folder.glob("*.tar"))) == SHARDS
    return content(folder)


def test_keys_are_unique_over_the_splits_of_a_data_set(whole, tmp_path):
    """Train and val of `whole` have samples of equal names; what only train has keeps its plain key."""
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    train, val = ([s for n in range(count) for s in read_index(tmp_path, f"s-{split}-{n:06d}.tar")["samples"]]
                  for split, count in (("train", 20), ("val", 4)))  # fmt: skip
    keys = [key for key, _ in train + val]
    assert len(set(keys)) == len(keys) == 360
    assert [key for key, _ in train[60:]] == [f"train-{n:08d}" for n in range(60, 300)]
    assert all(key.startswith(f"train-{n:08d}-") for n, (key, _) in enumerate(train[:60]))
    shards = open_shards(tmp_path, "val")
    assert np.array_equal(shards.read_image(5), open_shards(tmp_path, "train").read_image(5))


@pytest.mark.parametrize("number", rest_slow([signal.SIGTERM, signal.SIGINT]))
def test_a_signal_ends_the_workers_and_keeps_what_is_committed(number, whole, tmp_path):
    out = tmp_path / "d"
    process = start(out, "processes", faults="shards.before_rename:3=sleep")  # each worker stalls at its third shard
    wait_for_shards(out, 4)
    workers = psutil.Process(process.pid).children(recursive=True)
    second = subprocess.run(
        [sys.executable, "-m", "tests.data_pipelines.prepare.preparation", str(out), "processes"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert f"in use by process {process.pid}" in second.stderr
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not psutil.wait_procs(workers, timeout=20)[1]
    kept = {path: path.stat().st_ino for path in out.glob("*.tar")}
    assert len(kept) == 4
    assert run(out, "processes") == 0
    assert content(out) == whole
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


def test_a_full_disk_in_a_worker_is_one_message_and_nothing_is_lost(tmp_path):
    out = tmp_path / "d"
    command = [sys.executable, "-m", "seqtok", "data", "scenes", str(out), "--train", "2200", "--val", "0"]
    command += ["--test", "0", "--size", "8", "--processes", "2"]
    environment = {**os.environ, "SEQTOK_FAULTS": "shards.before_rename:2=enospc"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    messages = [line for line in done.stderr.splitlines() if line.startswith("seqtok: ")]
    assert len(messages) == 1
    assert "the disk is full" in messages[0]
    assert "Traceback" not in done.stderr
    kept = {path: path.stat().st_ino for path in out.glob("*.tar")}
    assert kept
    assert not list(out.glob(".*.tmp"))
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    assert all(path.stat().st_ino == inode for path, inode in kept.items())
    assert len(list(out.glob("*.tar"))) == 3


def test_a_worker_of_another_run_does_not_write(tmp_path):
    """A node that does not share the folder, or one that goes on after its run was lost."""
    sources = {"train": ScenesSource("train", 3, 8)}
    config = PrepareConfig(size=8)
    task = make_tasks(sources, config)[0]
    with folder_lock(tmp_path):
        owner = (tmp_path / "run.lock").read_text()
        work = PrepareWork(sources, config, tmp_path, "plan", owner)
        for change in ({"owner": "process 1 on mars"}, {"out": tmp_path / "a"}):
            with pytest.raises(StorageError, match="not the folder of the run"):
                do_task(dataclasses.replace(work, **change), task)
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
        assert do_task(work, task).built
        assert not do_task(work, task).built


def test_many_bad_samples_in_a_row_end_the_run(tmp_path):
    config = PrepareConfig(size=8, max_bad_share=1, max_bad_run=5)
    scattered = Spoiled("train", 60, 8, bad=frozenset(range(1, 60, 2)))
    assert prepare({"train": scattered}, tmp_path / "a", config).splits["train"].dropped == {"spoiled": 30}
    row = Spoiled("train", 60, 8, bad=frozenset(range(20, 25)))
    with pytest.raises(DataError, match=r"shard 0 of split train .*: 5 bad samples in a row, from sample 20 .*24"):
        prepare({"train": row}, tmp_path / "b", config)
    longer = config.model_copy(update={"max_bad_run": 6})
    assert prepare({"train": row}, tmp_path / "b", longer).splits["train"].samples == 55  # the same folder goes on


def test_what_is_filtered_is_counted_and_is_not_bad(tmp_path):
    source = Spoiled("train", 60, 8, bad=frozenset({3}), filtered=frozenset(range(10, 50)))
    config = PrepareConfig(size=8, max_bad_run=5, samples_per_shard=25)
    seen: list[Progress] = []
    info = prepare({"train": source}, tmp_path / "a", config, on_progress=seen.append).splits["train"]
    assert info.dropped == {"spoiled": 1, "filtered: too small": 40}
    assert [item.source for item in info.dropped_samples] == ["sample 3"]
    assert seen[-1].bad == 1
    with pytest.raises(DataError, match="all 60 samples are left out"):
        prepare({"train": Spoiled("train", 60, 8, filtered=frozenset(range(60)))}, tmp_path / "b", config)


def test_limits_and_workers_are_no_part_of_the_plan():
    """Otherwise a run that was refused for its bad samples could not be continued with a larger share."""
    sources = {"train": ScenesSource("train", 3, 8)}
    other = PrepareConfig(processes=7, engine="ray", ray_address="x", max_bad_share=1, max_bad_run=3)
    assert plan_of(sources, other) == plan_of(sources, PrepareConfig())
    assert plan_of(sources, PrepareConfig(quality=7)) != plan_of(sources, PrepareConfig())


def test_the_manifest_does_not_depend_on_the_order_in_which_shards_are_finished(tmp_path, monkeypatch):
    source = Spoiled("train", 600, 8, bad=frozenset(range(0, 600, 2)))
    config = PrepareConfig(size=8, max_bad_share=1, samples_per_shard=20)
    manifest = prepare({"train": source}, tmp_path / "a", config)
    assert [item.source for item in manifest.splits["train"].dropped_samples] == [
        f"sample {n}" for n in range(0, 200, 2)
    ]

    def shuffled(work, shared, tasks, *args, **kwargs):
        tasks = list(tasks)
        random.Random(0).shuffle(tasks)
        return run_tasks(work, shared, tasks)

    monkeypatch.setattr("data_pipelines.prepare.run.run_tasks", shuffled)
    prepare({"train": source}, tmp_path / "b", config)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_tasks_are_made_when_asked_for_and_cover_every_sample_once():
    sources = {"train": ScenesSource("train", 1003, 8), "val": ScenesSource("val", 10, 8)}
    tasks = make_tasks(sources, PrepareConfig(samples_per_shard=10))
    assert len(tasks) == len(list(tasks)) == 102
    assert tasks.shards == {"train": 101, "val": 1}
    for split, source in sources.items():
        own = [task for task in tasks if task.split == split]
        assert [index for task in own for index in range(task.start, task.stop)] == list(range(len(source)))
        assert [task.number for task in own] == list(range(len(own)))
    assert tasks[-1] == tasks[101]
    assert tasks[99:101] == [tasks[99], tasks[100]]
    assert sys.getsizeof(tasks[5].marks) < 40  # plain keys take no room


def test_progress_begins_early_and_counts_every_sample(tmp_path):
    seen: list[Progress] = []
    sources = {"train": ScenesSource("train", 20, 8), "val": ScenesSource("val", 5, 8)}
    config = PrepareConfig(size=8, samples_per_shard=10)
    prepare(sources, tmp_path / "d", config, on_progress=seen.append)
    assert [p.samples_done for p in seen if p.stage == "names"] == [20, 25]
    shards = [(p.shards_begun, p.shards_done, p.samples_done) for p in seen if p.stage == "shards"]
    assert shards == [(0, 0, 0), (1, 0, 0), (1, 1, 10), (2, 1, 10), (2, 2, 20), (3, 2, 20), (3, 3, 25)]
    seen.clear()
    prepare(sources, tmp_path / "d", config, on_progress=seen.append)
    assert (seen[-1].samples_done, seen[-1].samples_built) == (25, 0)


def test_the_pace_is_that_of_this_run():
    now = [100.0]
    pace = Pace(lambda: now[0])
    begun = Progress("shards", shards=10, samples=1000, shards_begun=1)
    assert pace.describe(Progress("names", samples=1000)) == []
    assert pace.describe(begun) == ["0 of 10 shards"]
    now[0] += 10
    dropped = {"damaged image": 2, "no caption": 3}
    later = dataclasses.replace(
        begun, shards_done=6, samples_done=600, samples_built=100, dropped=dropped, bad=5, workers_lost=1
    )
    assert pace.describe(later) == [
        "6 of 10 shards",
        "10 images/s",
        "0:00:40 left",
        "500 images were there",
        "5 dropped (no caption 3, damaged image 2)",
        "1 workers died, their shards are done again",
    ]


# Kills at random moments: minutes, so not in the default suite. The moments are random but the same in every run.

POINTS = ["shards.before_tar", "shards.before_rename", "shards.before_index", "shards.after_index"]
MAIN_POINTS = ["prepare.before_manifest", "prepare.after_manifest"]


@dataclasses.dataclass(frozen=True)
class Moment:
    """Kill the program or one of its workers when so many shards are there, so many seconds later; or by a fault."""

    what: str
    shards: int = 0
    later: float = 0.0
    fault: str = ""


def moments(seed: int) -> list[Moment]:
    dice = random.Random(seed)
    found = [Moment("program", dice.randrange(SHARDS), dice.uniform(0, 0.05)) for _ in range(4)]
    found += [Moment("worker", dice.randrange(SHARDS - 4), dice.uniform(0, 0.05)) for _ in range(3)]
    found += [Moment("fault", fault=f"{dice.choice(POINTS)}:{dice.randint(2, 8)}=kill") for _ in range(2)]
    return [*found, Moment("fault", fault=f"{dice.choice(MAIN_POINTS)}=kill")]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Those who do tasks; Ray has helpers of its own besides, which end some time after their program."""
    found = []
    for child in process.children(recursive=True):
        try:
            if any(word in " ".join(child.cmdline()) for word in ("spawn_main", "ray::_in_worker", "ray::IDLE")):
                found.append(child)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def disturb(out: Path, engine: str, moment: Moment) -> int:
    """Run until the kill, or through it. Returns the exit status."""
    if moment.what == "fault":
        return run(out, engine, faults=moment.fault)
    process = start(out, engine)
    wait_for_shards(out, moment.shards)
    time.sleep(moment.later)
    own = psutil.Process(process.pid)
    workers = workers_of(own)
    if moment.what == "program":
        process.kill()
    else:
        for worker in workers[:1]:
            worker.kill()
    errors = process.communicate(timeout=200)[1]
    assert process.returncode in (0, -signal.SIGKILL), errors
    assert not psutil.wait_procs(workers, timeout=60)[1], "a worker is left behind"
    return process.returncode


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_killed_at_ten_random_moments_the_final_bytes_are_the_same(engine, whole, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
    assert run(tmp_path / "whole", engine) == 0
    assert content(tmp_path / "whole") == whole
    statuses = []
    for number, moment in enumerate(moments(7)):
        out = tmp_path / str(number)
        statuses.append(disturb(out, engine, moment))
        print(f"{engine}: {moment}: status {statuses[-1]}, {len(list(out.glob('*.index.json')))} shards")
        assert run(out, engine) == 0
        assert content(out) == whole, moment
    assert -signal.SIGKILL in statuses
    assert 0 in statuses  # a killed worker is replaced, and the run goes on


@pytest.mark.slow
def test_a_cluster_goes_on_when_a_node_dies(whole, tmp_path):
    """Two nodes on this machine, one of which is killed in the middle; the program is a client of their cluster."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        out = tmp_path / "d"
        process = start(out, "ray", cluster.address)
        wait_for_shards(out, 4)
        cluster.remove_node(node, allow_graceful=False)
        errors = process.communicate(timeout=200)[1]
        assert process.returncode == 0, errors
        assert content(out) == whole
    finally:
        cluster.shutdown()
