"""What text is worth: the demo's tokenizer beside the same one trained without captions, at the same budget.

    python -m benchmarks.text_control DEMO_FOLDER [--out benchmarks/results/text_control.json]

Trains `demo-tokenizer` with model.text=null on the demo's data (same seed, images, batch), then fits the same
linear probes on both (8,000 training scenes, 2,000 held-out ones) and prints accuracy against prefix length.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from seqtok.runs.evaluate import probe_and_retrieve
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok.runs.train import train_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of a finished demo")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    plain = args.demo / "tokenizer_without_text"
    words = [
        "model.text=null",
        "model.writer=null",
        "objective.write=null",
        f"data.folder={args.demo / 'data'}",
        f"out={plain}",
    ]
    train_run(load_kind(TokenizerRun, "demo-tokenizer", words))
    results = {
        name: probe_and_retrieve(str(folder / "model"), args.demo / "data", "test", "train", 2000, 8000, None)
        for name, folder in (("with text", args.demo / "tokenizer"), ("without text", plain))
    }
    kept = {name: {key: result[key] for key in ("psnr", "probe", "probe_chance")} for name, result in results.items()}
    for level in ("count", "shapes", "colors", "details"):
        print(level, {name: _first_and_last(result["probe"]["levels"][level]) for name, result in kept.items()})
    if args.out:
        args.out.write_text(json.dumps({"machine": describe_machine(), **kept}, indent=1, sort_keys=True) + "\n")


def _first_and_last(points: dict[str, Any]) -> str:
    ks = sorted(points, key=int)
    return f"k=1 {points[ks[0]]:.3f}, k={ks[-1]} {points[ks[-1]]:.3f}"


if __name__ == "__main__":
    main()
