"""Findings about the system: processors, memory, shared memory, disk, ports, files, tools, variables."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
from pathlib import Path

import psutil

from seqtok.doctor.finding import Finding, ok, problem, warning
from seqtok_core.foundation import machine

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
PORT = 29500  # torchrun's and DeepSpeed's
_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "HF_HUB_OFFLINE", "HF_HOME"),
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_JOB_ID"),
)


def check_processors() -> list[Finding]:
    usable, there, quota = machine.processors(), os.cpu_count() or 1, machine.processor_limit()
    text = f"{usable} of {there} usable" + (f", quota of {quota:g}" if quota else "")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    granted = min(usable, quota or usable)
    if threads.isdigit() and int(threads) > granted:
        return [warning("processors", f"{text}; OMP_NUM_THREADS={threads}", f"export OMP_NUM_THREADS={int(granted)}")]
    if not threads and quota and quota < usable:
        way = f"export OMP_NUM_THREADS={max(1, int(quota))}: torch sees more processors than the quota grants"
        return [warning("processors", text, way)]
    return [ok("processors", text)]


def memory() -> list[Finding]:
    now, limit = psutil.virtual_memory(), machine.memory_limit()
    granted = min(now.available, limit or now.available)
    text = f"{granted / GIB:.1f} GiB available of {now.total / GIB:.1f}"
    text += f", the group's limit is {limit / GIB:.1f} GiB" if limit and limit < now.total else ""
    if granted < GIB:
        return [problem("memory", text, "a training needs about 1 GiB and more: end other programs, raise the limit")]
    if granted < 4 * GIB:
        return [warning("memory", text, "check with `seqtok plan`; keep data.loader.num_workers low")]
    return [ok("memory", text)]


def shared_memory() -> list[Finding]:
    """Loader workers hand batches over in /dev/shm; containers give 64 MiB by default."""
    if not SHARED_MEMORY.is_dir():
        return [warning("shared memory", f"{SHARED_MEMORY} is missing", "use data.loader.num_workers=0")]
    total, _, free = shutil.disk_usage(SHARED_MEMORY)
    text = f"{free / GIB:.2f} GiB free of {total / GIB:.2f} in {SHARED_MEMORY}"
    way = "docker run --shm-size=8g (or --ipc=host); else data.loader.num_workers=0"
    if free < GIB // 8:
        return [problem("shared memory", text, way)]
    if free < GIB:
        return [warning("shared memory", text, way)]
    return [ok("shared memory", text)]


def port() -> list[Finding]:
    """A left-over process on the default port stops the next launch."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", PORT))
        except OSError as error:
            way = "torchrun --standalone picks a free port; or --master-port 29501; or end the left-over process"
            return [warning("port", f"{PORT} cannot be used ({error.strerror})", way)]
    return [ok("port", f"{PORT} is free")]


def disk() -> list[Finding]:
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache")
    return [_folder("disk, this folder", Path.cwd()), _folder("disk, cache", cache)]


def _folder(subject: str, folder: Path) -> Finding:
    there = next((p for p in [folder, *folder.parents] if p.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"seqtok")
    except OSError as error:
        way = "set HF_HOME to a folder of yours" if "cache" in subject else "work in a folder of yours"
        return problem(subject, f"{folder} cannot be written ({error.strerror})", way)
    free = shutil.disk_usage(there).free
    text = f"{free / GIB:.1f} GiB free in {folder}"
    if free < GIB:
        return problem(
            subject, text, "free some space: checkpoints and shards will not fit (`seqtok plan` says how much)"
        )
    return warning(subject, text, "check with `seqtok plan`") if free < 5 * GIB else ok(subject, text)


def open_files() -> list[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} may be open at once"
    return (
        [warning("open files", text, f"ulimit -n {min(hard, 65536)}")] if 0 < soft < 1024 else [ok("open files", text)]
    )


def tools() -> list[Finding]:
    compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    found = [ok("compiler", compiler)] if compiler else []
    if not compiler:
        found = [warning("compiler", "none", "needed for train.compile and DeepSpeed's own kernels: apt install g++")]
    if shutil.which("ninja"):
        return [*found, ok("ninja", "there")]
    return [*found, warning("ninja", "not on the PATH", "needed for DeepSpeed's own kernels: pip install ninja")]


def variables() -> list[Finding]:
    names = [*_VARIABLES, *sorted(name for name in os.environ if name.startswith("NCCL_"))]
    present = {name: os.environ[name] for name in names if name in os.environ}
    found = [ok("variables", ", ".join(f"{n}={v}" for n, v in present.items()) or "none that matter are set")]
    if present.get("DS_ACCELERATOR", "cpu") not in ("cpu", "cuda"):
        found.append(
            problem("variables", f"DS_ACCELERATOR={present['DS_ACCELERATOR']}", "unset it, or set it to cpu or cuda")
        )
    if int(present.get("WORLD_SIZE", "1") or 1) > 1 and "MASTER_ADDR" not in present:
        found.append(
            problem("variables", "WORLD_SIZE without MASTER_ADDR", "start under torchrun, or unset WORLD_SIZE")
        )
    return found


CHECKS = (check_processors, memory, shared_memory, port, disk, open_files, tools, variables)
