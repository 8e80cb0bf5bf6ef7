"""Every fault that the doctor knows is found, named and comes with its way out; nothing ends in a traceback."""

from __future__ import annotations

import json
import socket
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seqtok.cli import app
from seqtok.doctor import handshake, software, system
from seqtok.doctor.finding import guarded, ok
from seqtok_core.foundation import machine
from seqtok_core.foundation.compat import prepare_torchvision

Usage = namedtuple("Usage", "total used free")
GIB = 2**30


@pytest.mark.parametrize(("free", "state"), [(64 * 2**20, "problem"), (GIB // 2, "warning"), (8 * GIB, "ok")])
def test_small_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str):
    monkeypatch.setattr(system, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(system.shutil, "disk_usage", lambda path: Usage(free, 0, free))
    (found,) = system.shared_memory()
    assert found.state == state
    assert ("--shm-size" in found.way) == (state != "ok")


def test_a_taken_port_is_named(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(system, "PORT", taken.getsockname()[1])
        (found,) = system.port()
        assert found.state == "warning"
        assert "--standalone" in found.way
    (found,) = system.port()
    assert found.state == "ok"


@pytest.mark.parametrize(("free", "state"), [(GIB // 2, "problem"), (2 * GIB, "warning"), (50 * GIB, "ok")])
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, free: int, state: str):
    monkeypatch.setattr(system.shutil, "disk_usage", lambda path: Usage(free, 0, free))
    assert [found.state for found in system.disk()] == [state, state]


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch):
    def refuse(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(system.tempfile, "TemporaryFile", refuse)
    here, cache = system.disk()
    assert here.state == cache.state == "problem"
    assert "Read-only" in here.text
    assert "HF_HOME" in cache.way


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "processors", lambda: 2)
    monkeypatch.setattr(machine, "processor_limit", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    (found,) = system.check_processors()
    assert (found.state, found.way) == ("warning", "export OMP_NUM_THREADS=2")


def test_limits_of_the_control_group_are_read(tmp_path: Path):
    assert machine.memory_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.memory_limit(tmp_path) is None
    assert machine.processor_limit(tmp_path) == 1.5
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert machine.memory_limit(tmp_path) == GIB


def test_little_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "memory_limit", lambda: GIB // 2)
    (found,) = system.memory()
    assert found.state == "problem"


def test_a_wrong_accelerator_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DS_ACCELERATOR", "tpu")
    assert "problem" in [found.state for found in system.variables()]


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name == "einops":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "numpy" else real(name)

    real = metadata.version
    monkeypatch.setattr(software.metadata, "version", version)
    problems = {found.text.split()[0]: found for found in software.versions() if found.state == "problem"}
    assert set(problems) == {"einops", "numpy"}
    assert problems["einops"].way.startswith("pip install 'einops")


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(software, "driver", lambda: {"NVIDIA H100": "550.54"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(software, "_cuda", lambda: None)
    (found,) = software.accelerators()
    assert found.state == "problem"
    assert "CUDA build" in found.way
    monkeypatch.setattr(software, "_cuda", lambda: "13.0")
    (found,) = software.accelerators()
    assert "driver 550.54 does not serve" in found.text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = software.accelerators()
    assert (found.state, found.way) == ("warning", "unset it")


def test_image_operators(monkeypatch: pytest.MonkeyPatch):
    (found,) = software.image_operators()
    assert ("declared" in found.text) == (prepare_torchvision() == "declared")

    def gone() -> str:
        raise ModuleNotFoundError("torchvision is not installed")

    monkeypatch.setattr("seqtok_core.foundation.compat.prepare_torchvision", gone)
    (found,) = software.image_operators()
    assert found.state == "problem"


def test_emulated_bf16(monkeypatch: pytest.MonkeyPatch):
    from seqtok_core.training.costs import hardware

    speeds = {"fp32": 1e12, "bf16": 2e11}
    monkeypatch.setattr(hardware, "measured_peak", lambda device, precision: hardware.Peak(speeds[precision], ""))
    (found,) = software.products()
    assert (found.state, found.way) == ("warning", "set train.precision=fp32")


def test_a_check_that_fails_is_a_finding():
    def graphics_card() -> list:
        raise RuntimeError("driver\nexploded")

    (found,) = guarded(graphics_card)
    assert (found.subject, found.state) == ("graphics card", "warning")
    assert "driver exploded" in found.text


def test_the_command_ends_with_status_1_on_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(software, "CHECKS", (lambda: [ok("packages", "all")],))
    monkeypatch.setattr(system, "CHECKS", ())
    run = CliRunner()
    assert run.invoke(app, ["doctor"]).exit_code == 0
    monkeypatch.setattr(system, "CHECKS", (lambda: [system.problem("disk", "full", "free some")],))
    result = run.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    assert [f["state"] for f in json.loads(result.stdout)] == ["ok", "problem"]


def test_processes_that_do_not_meet_are_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handshake, "_environment", lambda: {"PATH": "", "PYTHONPATH": "/nowhere", "TORCH": "broken"})
    monkeypatch.setattr(handshake.sys, "executable", "/bin/false")
    (found,) = handshake.network()
    assert found.state == "problem"


@pytest.mark.slow
def test_two_processes_meet():
    (found,) = handshake.network()
    assert found.state == "ok", found.text
