"""What the system grants this process: memory of its control group, processors it may use, files it may open."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from seqtok_core.foundation.errors import SeqtokError

_ROOT = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_NO_LIMIT = 1 << 60  # version 1 writes a number near 2^63 for "none"


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes that the control group (container, SLURM job) allows, or None."""
    for file in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _NO_LIMIT:
            return int(text)
    return None


def processor_limit(root: Path = _ROOT) -> float | None:
    """Processors that the control group's quota is worth, or None."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def processors() -> int:
    """Processors that this process may run on: fewer than the machine has under taskset, SLURM or Docker."""
    return len(_processor_numbers())


def cores(root: Path = _CPUS) -> list[set[int]]:
    """The same processors by core: two of one core compute little more than one."""
    mine, found = _processor_numbers(), dict[str, set[int]]()
    for number in mine:
        try:
            core = (root / f"cpu{number}" / "topology" / "thread_siblings_list").read_text().strip()
        except OSError:  # not Linux, or not told
            core = str(number)
        found.setdefault(core, set()).add(number)
    return list(found.values())


def _processor_numbers() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def file_size_limit() -> int | None:
    """Bytes that a file which this process writes may have (`ulimit -f`), or None."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def require_open_files(more: int, what: str) -> None:
    """See to it that this process may open `more` files than it holds open now.

    Its own limit is raised as far as the system allows. Raises SeqtokError that names `what` needs them, and how many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_files() + more
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard == resource.RLIM_INFINITY or needed <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return
    raise SeqtokError(
        f"{what}: about {needed} open files are needed, this process may have {hard}; raise its limit "
        f"(`ulimit -n {max(1024, needed)}`, as root or in the job's settings), or use fewer `num_workers`"
    )


def too_many_files() -> SeqtokError:
    """For whoever met EMFILE or ENFILE where nothing was asked for beforehand."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return SeqtokError(
        f"too many open files: this process may have {soft}; raise its limit (`ulimit -n {max(1024, 4 * soft)}`), or "
        "use fewer workers and processes"
    )


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # not Linux
        return 64
