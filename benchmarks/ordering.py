"""The figures of a suite, kept with the machine that made them.

    seqtok evaluate ordering ordering-scenes
    python -m benchmarks.ordering runs/ordering/scenes benchmarks/results/ordering_scenes.json

Can be called while the suite goes on: whatever is judged so far is kept, a record per contestant and seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.machine import describe_machine
from seqtok.evaluation.ordering.page import TABLE

_LEFT_OUT = ("protocol", "stages", "schema", "title")  # of each record: words and seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="`out` of the suite")
    parser.add_argument("results", type=Path)
    parser.add_argument("--note", help="what a reader should know, e.g. how many contestants ran side by side")
    args = parser.parse_args()
    table = json.loads((args.suite / TABLE).read_text())
    for records in table["runs"].values():
        for record in records.values():
            for name in _LEFT_OUT:
                record.pop(name, None)
    found = {"machine": describe_machine(), "note": args.note, **table}
    args.results.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
