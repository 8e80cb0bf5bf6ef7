"""environment.json: with what, on what and how often a run was started. Written at every start."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.version import cuda as built_for_cuda

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.threads import ThreadChoice
from seqtok_core.training.processes.distributed import World

FILE = "environment.json"
_PACKAGES = ("seqtok", "torch", "deepspeed", "numpy", "open_clip_torch", "webdataset", "sentencepiece")


def describe_environment(world: World, hosts: list[str]) -> dict[str, Any]:
    """`hosts`: the machine of every process, by rank."""
    return {
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "hosts": hosts,
        "processes": world.size,
        "device": str(world.device),
        **_machine(),
        **_accelerator(world.device.type),
        "versions": {name: version_of(name) for name in _PACKAGES},
        "torch_build": torch.__config__.show().strip().splitlines(),
        "commit": _commit(),
    }


def write_environment(folder: Path, world: World, hosts: list[str], threads: ThreadChoice) -> None:
    """Counts the starts of this run, whose last one it describes."""
    about = {**describe_environment(world, hosts), "threads": threads.to_json(), "starts": starts(folder) + 1}
    files.write_json(folder / FILE, about)


def threads_of(folder: Path) -> dict[str, Any] | None:
    """What the last start of the run in `folder` computed with, or None when that was not written down."""
    try:
        found = files.read_json(folder / FILE).get("threads")
    except (DataError, AttributeError):
        return None
    return found if isinstance(found, dict) else None


def starts(folder: Path) -> int:
    """How often the run in `folder` was started; 0 when it was not, or when that was not written down."""
    try:
        return int(files.read_json(folder / FILE).get("starts", 1))
    except (DataError, AttributeError, TypeError, ValueError):
        return 0


@functools.cache
def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _accelerator(kind: str) -> dict[str, Any]:
    """CUDA as torch was built for it, the driver as the kernel knows it, NCCL as torch brings it."""
    if kind != "cuda":
        return {"accelerator": None, "cuda": built_for_cuda, "driver": None, "nccl": None}
    driver = Path("/proc/driver/nvidia/version")
    return {
        "accelerator": torch.cuda.get_device_name(),
        "cuda": built_for_cuda,
        "driver": driver.read_text(encoding="utf-8").splitlines()[0] if driver.is_file() else None,
        "nccl": ".".join(str(part) for part in torch.cuda.nccl.version()),
    }


@functools.cache
def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """Of the code that runs, where it is a git checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
