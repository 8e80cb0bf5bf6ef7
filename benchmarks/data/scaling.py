"""Growing: two processes against one, a local Ray cluster against processes, memory from 1,000 to 100,000 images.

    python -m benchmarks.data.scaling [--photographs FOLDER] [--count 20000] [--turns 1] [--memory 1000 10000 100000]
                                      [--out benchmarks/results/data_scaling.json]

Speed: 512 -> 256 px JPEG of quality 95 from a folder, `--count` images, each way in a program of its own; Ray has as
many workers as the processes, one processor each. The ways take turns, and ratios are of seconds of the same turn.
Start-up is what the same command costs for as many pictures as workers; ratios are given without and with it.
Memory: benchmarks/data/memory.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.data.memory import SIZES, measure_memory
from benchmarks.data.photographs import photographs

WORKERS, PER_SHARD, SIZE, DISTINCT = 2, 250, 256, 100
WAYS = {"one process": ("processes", 1), "two processes": ("processes", WORKERS), "ray local": ("ray", WORKERS)}
ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="folder of real pictures; without it they are generated")
    parser.add_argument("--count", type=int, default=20000, help="images of the speed measurements")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--memory", type=int, nargs="*", default=list(SIZES), help="images of the memory measurements")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = measure(args.photographs, args.count, args.turns, args.memory)
    from benchmarks.machine import describe_command, describe_machine  # imports torch, which nothing else here needs

    text = json.dumps({"command": describe_command("data_scaling"), "machine": describe_machine(), **result}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def measure(folder: Path | None, count: int, turns: int = 1, sizes: Sequence[int] | None = None) -> dict[str, Any]:
    """The result is JSON. Without `sizes`, memory is measured at those that go with `count`."""
    files, made_of = photographs(folder, min(DISTINCT, count))
    sizes = [size for size in SIZES if size <= 50 * count] if sizes is None else sizes
    with tempfile.TemporaryDirectory(prefix="data_scaling-") as name:
        place = Path(name)
        many, few = link_pictures(place / "many", files, count), link_pictures(place / "few", files, WORKERS)
        speed = _speed(place, many, few, count, turns)
        memory = measure_memory(place / "memory", sizes)
    return {"pictures": made_of, "images": count, "samples_per_shard": PER_SHARD, "speed": speed, "memory": memory}


def _speed(place: Path, many: Path, few: Path, count: int, turns: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    start: dict[str, list[float]] = {way: [] for way in WAYS}
    run(place / "warm", few, "processes", 1, per_shard=1)
    for _ in range(turns):
        for way, (engine, workers) in WAYS.items():
            start[way].append(run(place / "out", few, engine, workers, per_shard=1))
            taken[way].append(run(place / "out", many, engine, workers, per_shard=PER_SHARD))
            print(f"{way}: {taken[way][-1]:.1f} s, of these start {start[way][-1]:.1f} s", file=sys.stderr, flush=True)
    rows = {
        way: {
            "images_per_second": round(count / statistics.median(_without(taken[way], start[way])), 1),
            "seconds": round(statistics.median(taken[way]), 2),
            "start_seconds": round(statistics.median(start[way]), 2),
        }
        for way in WAYS
    }
    own = {way: _without(taken[way], start[way]) for way in WAYS}
    return {
        **rows,
        "two_over_one": _ratio(own["one process"], own["two processes"]),
        "two_over_one_with_start": _ratio(taken["one process"], taken["two processes"]),
        "ray_over_processes": _ratio(own["two processes"], own["ray local"]),
        "ray_over_processes_with_start": _ratio(taken["two processes"], taken["ray local"]),
    }


def _without(taken: Sequence[float], start: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(taken, start, strict=True)]


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)


def run(out: Path, source: Path, engine: str, workers: int, per_shard: int) -> float:
    """Seconds of one preparation as the command that users give."""
    command = [sys.executable, "-m", "seqtok", "data", "prepare", str(source), str(out), "--overwrite"]
    command += ["--size", str(SIZE), "--form", "jpg", "--samples-per-shard", str(per_shard)]
    command += ["--processes", str(workers), "--engine", engine, "--ray-address", "local"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def link_pictures(folder: Path, files: Sequence[bytes], count: int) -> Path:
    """A folder with captions.jsonl and `count` pictures, which are hard links to the few different ones."""
    folder.mkdir(parents=True)
    for number, data in enumerate(files[:count]):
        (folder / f"{number:08d}.jpg").write_bytes(data)
    with open(folder / "captions.jsonl", "w") as lines:
        for number in range(count):
            name = f"{number:08d}.jpg"
            if number >= len(files):
                (folder / name).hardlink_to(folder / f"{number % len(files):08d}.jpg")
            captions = ["a picture", f"a picture of kind {number % 7}", f"picture number {number} of kind {number % 7}"]
            lines.write(json.dumps({"file_name": name, "captions": captions}) + "\n")
    return folder


if __name__ == "__main__":
    main()
