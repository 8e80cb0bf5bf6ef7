"""How a run is started: alone, under torchrun, under deepspeed, as tasks of srun; and how half a start is refused."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training import World
from seqtok_core.training.processes.launch import first_host, read_place
from tests.seqtok_core.training import toy as training_toy
from tests.seqtok_core.training.toy import lines, start_child, train_toy, under_torchrun

TORCH = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
SLURM = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
SLURM |= {"SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "40123"}


def without(variables: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}


def test_alone_nothing_is_needed():
    assert read_place({}).size == 1
    assert read_place({"LOCAL_RANK": "0"}).size == 1  # what DeepSpeed needs is set by ourselves
    assert read_place({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}).size == 1
    assert read_place({"RANK": "0", "WORLD_SIZE": "1"}).size == 1


def test_a_launcher_says_who_this_is():
    place = read_place({**TORCH, **SLURM, "SLURM_PROCID": "0"})  # torchrun inside a job: the inner one counts
    assert (place.rank, place.size, place.local_rank) == (1, 2, 1)


def test_srun_is_translated():
    place = read_place(SLURM)
    assert (place.rank, place.size, place.local_rank, place.launcher) == (1, 2, 1, "srun")
    assert place.variables["MASTER_ADDR"] == "gpu07"
    assert 12_000 <= int(place.variables["MASTER_PORT"]) < 32_000
    other_step = read_place({**SLURM, "SLURM_STEP_ID": "1"}).variables["MASTER_PORT"]
    assert other_step != place.variables["MASTER_PORT"]
    ours = read_place({**SLURM, "MASTER_ADDR": "here", "MASTER_PORT": "5"}).variables
    assert (ours["MASTER_ADDR"], ours["MASTER_PORT"]) == ("here", "5")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("n[1-4]", "n1"),
        ("n[003,007-9],m", "n003"),
        ("r[2-3]-x", "r2-x"),
        ("a-1.b,c", "a-1.b"),
    ],
)
def test_the_first_node_of_a_list(nodes: str, first: str):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        *[(without(TORCH, name), f"not {name}") for name in TORCH if name != "WORLD_SIZE"],
        (without(TORCH, "WORLD_SIZE"), "not WORLD_SIZE"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK is set but not RANK, WORLD_SIZE"),
        ({**TORCH, "RANK": "2"}, "RANK=2 does not lie below WORLD_SIZE=2"),
        ({**TORCH, "RANK": "first"}, "RANK='first' must be a whole number"),
        ({**TORCH, "LOCAL_RANK": "5"}, "LOCAL_RANK=5"),
        (without(SLURM, "SLURM_PROCID"), "SLURM_PROCID"),
        (without(SLURM, "SLURM_LOCALID"), "SLURM_LOCALID"),
        (without(SLURM, "SLURM_STEP_NODELIST"), "set MASTER_ADDR"),
        ({**SLURM, "SLURM_PROCID": "9"}, "SLURM_PROCID=9"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "not started by srun"),
    ],
)
def test_half_a_start_is_one_sentence(variables: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        read_place(variables)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    with pytest.raises(ConfigError, match="no usable GPU"):
        World.from_environment()
    monkeypatch.setenv("DS_ACCELERATOR", "xpu")
    with pytest.raises(ConfigError, match="choose cpu or cuda"):
        World.from_environment()


def test_each_process_has_its_gpu(monkeypatch):
    """Read only: no GPU is touched."""
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in TORCH.items():
        monkeypatch.setenv(name, value)
    assert World.from_environment().device == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="1 GPUs are visible"):
        World.from_environment()
    for name in TORCH:
        monkeypatch.delenv(name)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert World.from_environment().device == torch.device("cuda", 0)  # --gpus-per-task=1
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert World.from_environment().device == torch.device("cpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_tasks_of_srun_train_together(tmp_path):
    """Without any launcher: the variables of srun alone. Same losses as in one process."""
    env = {**SLURM, "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(free_port())}
    job = {"folder": str(tmp_path / "srun"), "images": 32}
    ranks = [{**env, "SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
    running = [start_child(dict(job), variables) for variables in ranks]
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0, 0]
    train_toy(tmp_path / "one", images=32)
    for ours, theirs in zip(lines(tmp_path / "srun"), lines(tmp_path / "one"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-5)
    environment = json.loads((tmp_path / "srun" / "environment.json").read_text())
    assert environment["processes"] == len(environment["hosts"]) == 2


def test_a_port_in_use_is_named_with_the_way_out(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        env = {**TORCH, "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        env["MASTER_PORT"] = str(taken.getsockname()[1])
        child = start_child({"folder": str(tmp_path / "run")}, env, tmp_path / "said.txt")
        child.join(60)
    said = (tmp_path / "said.txt").read_text()
    assert child.exitcode == 2, said
    assert "is in use by another launch" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_under_deepspeed(tmp_path):
    """The documented command; the launcher adds --local_rank, which the toy and `seqtok` both take."""
    program = ["-m", "deepspeed.launcher.runner", "--num_accelerators", "2", "--master_port", str(free_port())]
    job = json.dumps([{"folder": str(tmp_path / "ds"), "images": 32}])
    command = [sys.executable, *program, training_toy.__file__, job]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    assert under_torchrun([{"folder": str(tmp_path / "tr"), "images": 32}]).returncode == 0
    assert lines(tmp_path / "ds") == lines(tmp_path / "tr")


def test_the_command_takes_the_argument_of_deepspeeds_launcher(capsys):
    from seqtok import cli

    with pytest.raises(SystemExit) as end:
        cli.app(["--local_rank=0", "config", "ls"])
    assert not end.value.code
    assert "demo-tokenizer" in capsys.readouterr().out


@pytest.mark.slow
def test_repeated_ends_of_two_processes_are_clean(tmp_path):
    """Torn down as usual, a process of several aborts now and then, most often on a loaded machine."""
    for number in range(4):
        finished = under_torchrun([{"folder": str(tmp_path / str(number)), "images": 24}])
        assert finished.returncode == 0, finished.stderr[-2000:]
        assert "terminate called" not in finished.stderr


def test_the_shared_memory_operator_is_not_compiled(tmp_path):
    from deepspeed.ops import __compatible_ops__

    train_toy(Path(tmp_path), images=24)
    assert __compatible_ops__["deepspeed_shm_comm"] is False
