"""A small preparation as a program of its own, to be killed: python -m MODULE OUT ENGINE [ADDRESS]."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.drawn import ScenesSource

ROOT = Path(__file__).parents[3]
SHARDS = 24


def main(out: str, engine: str, address: str = "local") -> None:
    """Two splits whose names clash, so that the keys of both splits are planned together."""
    sources = {"train": ScenesSource("train", 300, 96), "val": ScenesSource("train", 60, 96)}
    how = {"engine": engine, "ray_address": address, "processes": 2}
    prepare(sources, Path(out), PrepareConfig.parse({"name": "s", "size": 96, "samples_per_shard": 15, **how}))


def start(out: Path, engine: str, *more: str, faults: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.data_pipelines.prepare.preparation", str(out), engine, *more]
    environment = {**os.environ, "SEQTOK_FAULTS": faults, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(out: Path, engine: str, *more: str, faults: str = "") -> int:
    """Exit status; negative for a signal. With faults, a shard may have lost too many workers."""
    process = start(out, engine, *more, faults=faults)
    _, errors = process.communicate(timeout=200)
    gave_up = faults and "its worker died 3 times" in errors
    assert process.returncode in (0, -signal.SIGKILL) or gave_up, errors
    return process.returncode


def wait_for_shards(out: Path, count: int, seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while len(list(out.glob("*.index.json"))) < count:
        assert time.monotonic() < end, f"{out}: no {count} shards in {seconds} s"
        time.sleep(0.002)


if __name__ == "__main__":
    main(*sys.argv[1:])
