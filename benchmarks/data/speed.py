"""Speed of the data pipelines: writing, reading, and growing. One door to the three benchmarks.

    python -m benchmarks.data.speed [--only write read scale] [--photographs FOLDER] [--count N] [--out FOLDER]

write  benchmarks/data/writing.py: 512 -> 256 px JPEG through `prepare`, against its own libjpeg limit
read   benchmarks/data/reading.py: the loader against a plain webdataset pipeline
scale  benchmarks/data/scaling.py: processes, Ray, memory

Every result names its command, the machine and the commit, and goes to OUT/data_<name of the part>.json. What one
benchmark compares is measured in the same run, taking turns; figures of different runs should not be compared.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

PARTS = {"write": "writing", "read": "reading", "scale": "scaling"}
COUNTS = {"write": 2000, "read": 2000, "scale": 20000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--photographs", type=Path, help="folder of real pictures; without it they are generated")
    parser.add_argument("--count", type=int, help=f"pictures; by default {COUNTS}")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    for part in args.only:
        name = PARTS[part]
        measure = importlib.import_module(f"benchmarks.data.{name}").measure
        result = measure(args.photographs, args.count or COUNTS[part])
        from benchmarks.machine import describe_command, describe_machine  # imports torch, which workers need not

        text = json.dumps(
            {"command": describe_command("data.speed"), "machine": describe_machine(), **result}, indent=1
        )
        print(text)
        if args.out:
            (args.out / f"data_{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
