"""What the system grants this process: memory of its control group, processors it may use."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
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
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
