"""`seqtok plan` against real runs: memory within 15 %, time within 25 %, on three configs on this CPU.

    python -m benchmarks.training.plan_check WORK_FOLDER [--steps 100] [--out benchmarks/results/plan_check.json]

Draws scenes of 32 and 64 px into WORK_FOLDER, then for each of demo-tokenizer, demo-generator and emoji-tokenizer:
plan in one process, train in another. Compared are the peak resident memory of the training process, imports
included, with the total to expect (from measured steps; the formula's error is kept too); and the seconds of a step
after the first 20, in which kernels are compiled, with the plan's measured ones. The formula's time is shown too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_command, describe_machine

MEMORY_BAR, TIME_BAR = 0.15, 0.25
_BATCH, _FIRST = 64, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="of the three configs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for name, kind, words in _runs(args.folder, args.steps):
        row = _compare(name, kind, words, args.folder / name) if not args.only or name in args.only else None
        if row:
            rows.append(row)
            print(
                f"{name:16} memory {row['memory_planned'] / 1e6:6.0f} MB planned, {row['memory_measured'] / 1e6:6.0f} "
                f"measured ({row['memory_error']:+.1%}); step {row['step_planned'] * 1e3:6.1f} ms planned, "
                f"{row['step_measured'] * 1e3:6.1f} measured ({row['time_error']:+.1%})",
                flush=True,
            )
    within = all(abs(r["memory_error"]) <= MEMORY_BAR and abs(r["time_error"]) <= TIME_BAR for r in rows)
    print("within the bars" if within else "NOT within the bars")
    if args.out:
        about = {"command": describe_command("plan_check"), "machine": describe_machine()}
        about |= {"bars": [MEMORY_BAR, TIME_BAR]}
        args.out.write_text(json.dumps({**about, "within": within, "runs": rows}, indent=1) + "\n")


def _runs(folder: Path, steps: int) -> list[tuple[str, str, list[str]]]:
    """(config, kind, changes); makes the data, with the tokenizer of the first run as that of the second."""
    train = [f"train.images={steps * _BATCH}", f"train.batch={_BATCH}", f"train.log_every={_FIRST}"]
    train += [f"train.warmup_images={2 * _BATCH}", "train.checkpoint_every=null"]
    for size in (32, 64):
        scenes = folder / f"scenes{size}"
        if not (scenes / "captions.model").is_file():
            _seqtok("data", "scenes", str(scenes), "--train", "1500", "--val", "0", "--test", "50", "--size", str(size))
            _seqtok("data", "text", str(scenes), "--vocab", "512")
    tokenizer = folder / "for-latents"
    if not (folder / "latents" / "dataset.json").is_file():
        words = [f"data.folder={folder / 'scenes32'}", f"out={tokenizer}", *train, f"train.images={8 * _BATCH}"]
        _seqtok("tokenizer", "train", "demo-tokenizer", *words)
        _seqtok("tokenizer", "export", str(tokenizer / "model"), str(folder / "scenes32"), str(folder / "latents"))
    no_pictures = "train.sample_every=null"
    return [
        ("demo-tokenizer", "tokenizer", [f"data.folder={folder / 'scenes32'}", *train, no_pictures]),
        ("demo-generator", "generator", [f"data.folder={folder / 'latents'}", *train]),
        ("emoji-tokenizer", "tokenizer", [f"data.folder={folder / 'scenes64'}", *train, no_pictures]),
    ]


def _seqtok(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "seqtok", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"seqtok {' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def _compare(name: str, kind: str, words: list[str], out: Path) -> dict[str, Any]:
    said = _seqtok("plan", name, *words, "--gpu", "cpu", "--json")
    planned = json.loads(said[said.index("{\n") :])
    shutil.rmtree(out, ignore_errors=True)
    peak = _train(kind, name, [*words, f"out={out}"])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]
    step = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    memory, seconds = planned["memory"], planned["time"]
    return {
        "config": name,
        "changes": [word for word in words if "=/" not in word],  # without the folders of this run
        "memory_planned": memory["total"],
        "memory_parts": memory["stages"][memory["chosen_stage"]],
        "memory_formula_error": round(memory["stages"][memory["chosen_stage"]]["total"] / peak - 1.0, 4),
        "memory_measured": peak,
        "memory_error": round(memory["total"] / peak - 1.0, 4),
        "step_planned": seconds["step_seconds"],
        "step_measured": step,
        "time_error": round(seconds["step_seconds"] / step - 1.0, 4),
        "step_formula": seconds["formula_seconds"] / last["step"],
        "seconds_in_all": last["seconds"],
    }


def _train(kind: str, config: str, words: list[str]) -> int:
    """Peak resident bytes of the training's process."""
    command = [sys.executable, "-m", "seqtok", kind, "train", config, *words]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
