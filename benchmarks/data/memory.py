"""Peak memory of a preparation's main process and of its workers, by number of images and kind of source.

Pictures are 96 px JPEG brought to 64 px, a hundred different ones under as many names as are asked for. The peak is
the kernel's own (VmHWM of /proc, resident set), read from every process of the run while it lasts; of the workers the
largest counts. "bytes_per_image": growth of the main process from the fewest to the most images.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

SIZES = (1_000, 10_000, 100_000)
_EVERY = 0.1  # seconds between two looks
_ROOT = Path(__file__).parents[2]
_WORKER_WORDS = ("spawn_main", "ray::_in_worker", "ray::IDLE")  # of processes, of Ray


def measure_memory(place: Path, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """One row per way and number of images; `place` is a folder for the pictures, on a disk of some GB."""
    from benchmarks.data.scaling import link_pictures

    rows: list[dict[str, Any]] = []
    files = [_picture(seed) for seed in range(100)]
    for count in sorted(sizes):
        folder = link_pictures(place / str(count), files, count)
        for source, engine in ((folder, "processes"), (folder, "ray"), (place / f"tars-{count}", "processes")):
            out = place / f"tars-{count}" if source == folder and engine == "processes" else place / "out"
            peaks = _peaks(source, out, engine)
            kind = "folder" if source == folder else "tars"
            rows.append({"source": kind, "engine": engine, "images": count, **peaks})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows + [_growth(rows, source, engine) for source, engine in _ways(rows)] if len(sizes) > 1 else rows


def _ways(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["source"], row["engine"]) for row in rows))


def _growth(rows: Sequence[dict[str, Any]], source: str, engine: str) -> dict[str, Any]:
    own = [row for row in rows if (row["source"], row["engine"]) == (source, engine)]
    first, last = own[0], own[-1]
    more = last["images"] - first["images"]
    return {
        "source": source,
        "engine": engine,
        "from_to": [first["images"], last["images"]],
        "main_bytes_per_image": round((last["main_mib"] - first["main_mib"]) * 2**20 / more, 1),
        "main_growth": round(last["main_mib"] / first["main_mib"], 3),
        "worker_growth": round(last["worker_mib"] / first["worker_mib"], 3),
    }


def _peaks(source: Path, out: Path, engine: str) -> dict[str, float]:
    command = [sys.executable, "-m", "seqtok", "data", "prepare", str(source), str(out), "--overwrite"]
    command += ["--size", "64", "--form", "jpg", "--samples-per-shard", "500", "--processes", "2"]
    command += ["--engine", engine, "--ray-address", "local"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    main, workers = 0, 0
    while process.poll() is None:
        main = max(main, _peak(process.pid))
        workers = max([workers, *(_peak(worker.pid) for worker in _workers(process.pid))])
        time.sleep(_EVERY)
    if process.returncode:
        raise RuntimeError(process.stderr.read().decode() if process.stderr else "")
    seconds = time.perf_counter() - begin
    return {"main_mib": round(main / 1024, 1), "worker_mib": round(workers / 1024, 1), "seconds": round(seconds, 1)}


def _workers(pid: int) -> list[psutil.Process]:
    found = []
    try:
        for child in psutil.Process(pid).children(recursive=True):
            if any(word in " ".join(child.cmdline()) for word in _WORKER_WORDS):
                found.append(child)
    except psutil.Error:  # it ended meanwhile
        pass
    return found


def _peak(pid: int) -> int:
    """KiB; 0 for a process that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _picture(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()
