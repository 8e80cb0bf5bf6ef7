"""The figures of a suite, kept with the machine that made them.

    seqtok evaluate ordering ordering-scenes
    python -m benchmarks.ordering runs/ordering/scenes benchmarks/results/ordering_scenes.json

Can be called while the suite goes on: whatever is judged so far is kept, a record per contestant and seed. Seeds that
were judged elsewhere are added with `--with FILE`, a file that this wrote before: each record then names its machine,
and means and intervals are of all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from seqtok.evaluation.ordering.page import TABLE, suite_as_json
from seqtok.evaluation.ordering.table import Results, Row, summarise_suite

_LEFT_OUT = ("protocol", "stages", "schema", "title")  # of each record: words and seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="`out` of the suite")
    parser.add_argument("results", type=Path)
    parser.add_argument("--with", dest="earlier", type=Path, action="append", default=[], help="results of other seeds")
    parser.add_argument("--note", help="what a reader should know, e.g. how many contestants ran side by side")
    args = parser.parse_args()
    table = json.loads((args.suite / TABLE).read_text())
    for records in table["runs"].values():
        for record in records.values():
            for name in _LEFT_OUT:
                record.pop(name, None)
    found = {"machine": describe_machine(), "note": args.note, **table}
    if args.earlier:
        found = joined([*(json.loads(path.read_text()) for path in args.earlier), found])
    args.results.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def joined(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One table of all their seeds. Exits where they are not of the same suite: other settings of the judge, budgets,
    sizes, or a seed that stands in two."""
    rows: dict[str, Row] = {}
    for table in tables:
        if table["judge"] != tables[0]["judge"]:
            raise SystemExit("These suites were judged with other settings: their figures do not belong together.")
        for name, about in table["contestants"].items():
            before = rows[name].runs if name in rows else []
            runs = [*before, *({"machine": table.get("machine"), **run} for run in table["runs"][name].values())]
            _require_alike(name, runs)
            rows[name] = Row(name, about["says"], about["taught"], sorted(runs, key=lambda run: run["seed"]))
    notes = dict.fromkeys(note for table in tables if (note := table.get("note")))
    summary = summarise_suite(list(rows.values()), tables[0]["judge"])
    return {"note": "; ".join(notes), **suite_as_json(summary, list(rows.values()))}


def _require_alike(name: str, runs: Sequence[Results]) -> None:
    seeds = [run["seed"] for run in runs]
    if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
        raise SystemExit(f"{name}: seed {min(twice)} stands in two of these files.")
    if any((run["trained"], run["cost"]) != (runs[0]["trained"], runs[0]["cost"]) for run in runs):
        raise SystemExit(f"{name}: its seeds differ in size or budget.")


if __name__ == "__main__":
    main()
