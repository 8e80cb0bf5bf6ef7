"""The number of threads follows the cores that are free; what the user says wins; a continued run keeps its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seqtok_core.foundation import machine, threads
from seqtok_core.foundation.threads import choose_threads
from seqtok_core.training import loop
from seqtok_core.training.journal import environment
from seqtok_core.training.journal.slowdown import Slowdown
from tests.seqtok_core.training.toy import train_toy


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: [{number} for number in range(4)])
    monkeypatch.setattr(threads, "processor_limit", lambda: None)


def chosen(setting: Any, busy: float = 0.0, environ: dict[str, str] | None = None, **more: Any) -> int | None:
    return choose_threads(setting, environ=environ or {}, busy_cores=lambda: busy, **more).chosen


@pytest.mark.parametrize(("busy", "number"), [(0.0, 4), (0.4, 4), (1.0, 3), (2.6, 1), (4.0, 1), (9.0, 1)])
def test_busy_cores_are_left_alone(busy: float, number: int):
    assert chosen("auto", busy) == number


def test_what_the_user_says_wins():
    assert chosen(3, busy=4.0, environ={"OMP_NUM_THREADS": "2"}) == 3
    assert chosen("auto", busy=4.0, environ={"OMP_NUM_THREADS": "2"}) is None
    assert chosen(None, busy=4.0) is None
    assert chosen("auto", busy=4.0, on_cpu=False) is None


def test_a_quota_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "processor_limit", lambda: 2.5)
    assert chosen("auto") == 2


def test_processes_share_the_machine_without_counting_each_other():
    assert chosen("auto", busy=4.0, processes=2) == 2
    assert chosen("auto", processes=7) == 1


def test_a_continued_run_keeps_its_number_on_a_machine_of_as_many_cores(monkeypatch: pytest.MonkeyPatch):
    before = choose_threads("auto", environ={}, busy_cores=lambda: 3.0).to_json()
    assert chosen("auto", busy=0.0, before=before) == 1
    assert chosen(2, before=before) == 2
    monkeypatch.setattr(threads, "cores", lambda: [{number} for number in range(8)])
    assert chosen("auto", busy=0.0, before=before) == 8


def test_the_choice_is_said_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[Any] = []

    def choose(setting: Any, **more: Any) -> threads.ThreadChoice:
        asked.append(more["before"])
        return choose_threads(setting, **more, environ={}, busy_cores=lambda: 3.0)

    monkeypatch.setattr(loop, "choose_threads", choose)
    for _ in range(2):
        train_toy(tmp_path / "run", threads="auto", images=32, warmup_images=8)
        assert torch.get_num_threads() == 1
    kept = environment.threads_of(tmp_path / "run")
    assert kept == {"setting": "auto", "chosen": 1, "cores": 4, "busy": None, "why": kept["why"]}
    assert "as this run began" in kept["why"]
    assert asked[0] is None
    assert (asked[1]["chosen"], asked[1]["busy"]) == (1, 3.0)
    train_toy(tmp_path / "run", threads="auto", images=32, warmup_images=8, overwrite=True)
    assert asked[2] is None
    said = capsys.readouterr().err
    assert "run: computes on 1 of 4 cores: 3.0 are busy with other work" in said


def test_a_slow_run_on_a_loaded_machine_says_so_once_for_each_time():
    watch = Slowdown(cores=2)
    assert [watch.look(rate, load=9.0) for rate in (10, 500, 510, 300)] == [None] * 4
    said = watch.look(200, load=3.5)
    assert said is not None
    assert "200 images/s where it was 510: the machine's load is 3.5 on 2 cores" in said
    assert watch.look(190, load=3.5) is None
    assert watch.look(505, load=3.5) is None
    assert watch.look(200, load=3.5) is not None


def test_a_slow_run_on_a_quiet_machine_is_not_blamed_on_it():
    watch = Slowdown(cores=2)
    assert [watch.look(rate, load=1.5) for rate in (10, 500, 510, 100)] == [None] * 4


def test_two_processors_of_a_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(4):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 2},{number % 2 + 2}\n")
    monkeypatch.setattr(machine, "_processor_numbers", lambda: [0, 1, 2, 3])
    assert machine.cores(tmp_path) == [{0, 2}, {1, 3}]
    monkeypatch.setattr(threads, "cores", lambda: [{0, 2}, {1, 3}])
    monkeypatch.setattr("psutil.cpu_percent", lambda interval, percpu: [100.0, 10.0, 100.0, 0.0])
    assert threads.usable_cores() == 2
    assert threads.measure_busy_cores() == pytest.approx(1.1)
