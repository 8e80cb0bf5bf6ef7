"""What text is worth and what it costs: the demo's tokenizer beside the same one trained without captions.

    python -m benchmarks.text_control DATA OUT [--seeds 0 1 2] [--only CONTESTANT ...] [--results FILE]

DATA and OUT are those of `benchmarks.prefix_truth`, which trains the contestants (same data, seed, images and batch).
The same linear probes are fitted on each (8,000 training scenes, 2,000 held-out ones). Labels that no caption speaks of
stand beside the others: exact places, and what is first named in a scene.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.machine import describe_command, describe_machine
from benchmarks.prefix_truth import CONTESTANTS
from seqtok.runs.judge.models import probe_and_retrieve

KEPT = ("psnr", "probe", "probe_chance", "retrieval", "retrieval_chance")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=["text_on_every_prefix", "no_text"])
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    about = {"command": describe_command("text_control"), "machine": describe_machine()}
    runs: dict[str, dict[str, Any]] = {}
    for name in args.only:
        for seed in args.seeds:
            model = args.out / f"{name}-{seed}" / "tok" / "model"
            found = probe_and_retrieve(str(model), args.data, "test", "train", 2000, 8000, None)
            runs.setdefault(name, {})[str(seed)] = {key: found[key] for key in KEPT if key in found}
            if args.results:
                args.results.write_text(json.dumps({**about, "runs": runs}, indent=1, sort_keys=True) + "\n")
    for part in ("levels", "labels"):
        for label in next(iter(next(iter(runs.values())).values()))["probe"][part]:
            for name, seeds in runs.items():
                print(f"{label:12} {name:22} {_by_prefix([run['probe'][part][label] for run in seeds.values()])}")


def _by_prefix(curves: list[dict[str, float]]) -> str:
    """Means over seeds in per cent."""
    ks = sorted(curves[0], key=int)
    return "  ".join(f"k={k} {100 * fmean(curve[k] for curve in curves):5.1f}" for k in ks)


if __name__ == "__main__":
    main()
