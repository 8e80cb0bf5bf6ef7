"""From results to the tables of the report: every number of its curves, and runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqtok.evaluation.report.report_words import number, percent, spelled

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """`section` is the part of `protocol` that explains it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    section: str = ""


def comparison(runs: Mapping[str, Results]) -> Table | None:
    """Runs side by side; None for a single one."""
    if len(runs) == 1:
        return None
    head = ["run", "PSNR k=1 (dB)", "PSNR k=K (dB)", "SSIM k=K", "everything right (%)"]
    rows = []
    for name, results in runs.items():
        psnr, ssim = results.get("psnr", {}), results.get("ssim", {})
        row = [name, number(psnr.get("1"), 2), number(_last(psnr), 2), number(_last(ssim), 3)]
        rows.append([*row, percent(results.get("reader", {}).get("everything", {}).get("value"))])
    return Table("Runs side by side", head, rows)


def of_a_set(results: Results) -> list[Table]:
    """A large set of drawn pictures against real ones."""
    found = results.get("samples")
    if not found:
        return []
    score = found.get("inception_score", {})
    rows = [
        ["Fréchet distance", number(found["frechet"], 3)],
        ["of endlessly many pictures", number(found.get("frechet_infinity"), 3)],
        ["precision (%)", percent(found.get("precision"))],
        ["recall (%)", percent(found.get("recall"))],
        ["inception score", number(score.get("mean"), 2)],
    ]
    title = f"{found['pictures']:,} drawn pictures against {found['reference']}, seen by {found['network']}"
    return [Table(title, ["", "value"], rows, "samples")]


def second_opinions(results: Results) -> list[Table]:
    """Shares of right pictures by both readers, what the tokenizer alone reaches, and by number of shapes."""
    tables = []
    if second := results.get("second_reader"):
        sets = list(next(iter(second.values())))
        rows = [[spelled(name), *(percent(row[each]) for each in sets)] for name, row in second.items()]
        tables.append(Table("", ["by the second reader (%)", *sets], rows))
    if rebuilt := results.get("reader_rebuilt"):
        rows = [[spelled(name), percent(value)] for name, value in rebuilt.items()]
        tables.append(Table("", ["by the first reader (%)", "rebuilt"], rows))
    if numbers := results.get("by_shapes"):
        sets = list(next(iter(numbers.values())))
        rows = [[name, *(percent(row[each]) for each in sets)] for name, row in numbers.items()]
        tables.append(Table("", ["everything right (%), by number of shapes", *sets], rows))
    if new := results.get("novelty"):
        rows = [[name, percent(value)] for name, value in new["captions"].items()]
        tables.append(
            Table("", ["prompts that stand word for word in the training (%), by number of shapes", ""], rows)
        )
        near = new["distance"]
        rows = [["drawn", number(near["drawn"], 1)], ["real, held out", number(near["held_out"], 1)]]
        tables.append(Table("", ["distance to the nearest training picture, in 8-bit levels (median)", ""], rows))
    return tables


def number_tables(results: Results) -> list[Table]:
    """Every number of the curves."""
    tables = []
    if psnr := results.get("psnr"):
        rows = [["PSNR (dB)", *(number(v, 2) for v in psnr.values())]]
        if "ssim" in results:
            rows.append(["SSIM", *(number(v, 4) for v in results["ssim"].values())])
        tables.append(Table("Reconstruction", ["", *_ks(psnr)], rows))
    for part in ("levels", "labels"):
        accuracy = results.get("probe", {}).get(part, {})
        if accuracy:
            chance = results["probe_chance"][part]
            rows = [[spelled(n), percent(chance[n]), *map(percent, p.values())] for n, p in accuracy.items()]
            head = ["", "chance", *_ks(next(iter(accuracy.values())))]
            tables.append(Table(f"Linear probes by {part[:-1]} (%)", head, rows))
    tables += _retrieval_tables(results)
    if by_prefix := results.get("reader_by_prefix"):
        rows = [[spelled(name), *map(percent, p.values())] for name, p in by_prefix.items()]
        tables.append(Table("Generated pictures that are right (%)", ["", *_ks(_first(by_prefix))], rows))
    if by_prefix := results.get("captions_by_prefix"):
        rows = [[spelled(name), *map(percent, p.values())] for name, p in by_prefix.items()]
        tables.append(Table("Captions written from k tokens that are true (%)", ["", *_ks(_first(by_prefix))], rows))
    for section, how in (("prefix_truth", "drawn"), ("decoded_truth", "decoded")):
        if section in results:
            both = results[section]["levels"] | {f"{n}, alone": r for n, r in results[section]["attributes"].items()}
            chance = {name: percent(row["chance"]["1"]) for name, row in both.items()}
            rows = [[spelled(n), chance[n], *map(percent, row["value"].values())] for n, row in both.items()]
            head = ["", "chance, k = 1", *_ks(_first(both)["value"])]
            tables.append(Table(f"Pictures {how} from k tokens that are right (%)", head, rows))
    return tables


def _retrieval_tables(results: Results) -> list[Table]:
    tables = []
    for name, by_k in results.get("retrieval", {}).items():
        chance, among = results["retrieval_chance"][name], results["retrieval_candidates"][name]
        rows = [[_direction(key), percent(chance[key]), *(percent(v[key]) for v in by_k.values())] for key in chance]
        title = f"Retrieval, {spelled(name)}: {among['images']} pictures, {among['captions']} captions (%)"
        tables.append(Table(title, ["", "chance", *_ks(by_k)], rows))
    return tables


def _direction(key: str) -> str:
    way, rank = key.rsplit("_r", 1)
    return ("picture → caption" if way == "image_to_caption" else "caption → picture") + f", R@{rank}"


def _ks(points: Mapping[str, Any]) -> list[str]:
    return [f"k = {k}" for k in points]


def _first(mapping: Mapping[str, Any]) -> Any:
    return next(iter(mapping.values()))


def _last(points: Mapping[str, float]) -> float | None:
    return points[max(points, key=int)] if points else None
