"""From results and pictures to what the report's template shows: headlines, rows and curves, with numbers as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from markupsafe import Markup
from torch import Tensor

from seqtok.evaluation.report.charts import Curve, chart
from seqtok.evaluation.report.kept_pictures import ReportPictures
from seqtok.evaluation.report.report_words import percent, spelled
from seqtok.evaluation.scenes.scoring import ATTRIBUTES
from seqtok.grids import data_uri

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """`section` is the part of `protocol` that explains it."""

    title: str
    svg: Markup
    section: str


def headlines(results: Results) -> list[tuple[str, str, str]]:
    """(number, unit, what it is) of what a reader wants to know first."""
    found = []
    if psnr := results.get("psnr"):
        last = max(psnr, key=int)
        found.append((f"{psnr[last]:.1f}", "dB", f"PSNR from all {last} tokens"))
        found.append((f"{psnr['1']:.1f}", "dB", "PSNR from the first token alone"))
    if levels := results.get("probe", {}).get("levels"):
        name, points = next(iter(levels.items()))
        last = max(points, key=int)
        kept = points["1"] / points[last] if points[last] else 0.0
        found.append((percent(kept, 0), "%", f"of the probe accuracy on “{spelled(name)}” is in the first token"))
    reader = results.get("reader", {})
    for name, text in (
        ("everything", "of generated pictures show everything asked"),
        ("relation", "of generated pictures have every relation right"),
    ):
        if name in reader:
            found.append((percent(reader[name]["value"], 0), "%", text))
    if captions := results.get("captions"):
        text = "of captions of held-out pictures are true in everything"
        found.append((percent(captions["everything"]["value"], 0), "%", text))
    return found


def strip_rows(pictures: ReportPictures | None) -> list[dict[str, Any]]:
    """Per held-out picture: the decoded pictures and the original as data URIs."""
    if pictures is None:
        return []
    drawn: Iterable[Iterable[Tensor]] = repeat([]) if pictures.drawn is None else pictures.drawn
    return [
        {
            "rebuilt": [data_uri(p) for p in rebuilt],
            "original": data_uri(original),
            "drawn": [[data_uri(p) for p in row] for row in rows],
        }
        for rebuilt, original, rows in zip(pictures.rebuilt, pictures.originals, drawn, strict=False)
    ]


def generated_rows(pictures: ReportPictures | None) -> list[dict[str, Any]]:
    """Per prompt: its words, its pictures as data URIs, what is wrong with the last one, and if it was
    unseen."""
    if pictures is None or pictures.generated is None:
        return []
    rows = []
    for i, (prompt, row) in enumerate(zip(pictures.prompts, pictures.generated, strict=True)):
        verdict = pictures.verdicts[i] if pictures.verdicts else None
        wrong = [name for name, right in (verdict or {}).items() if not right and name != "everything"]
        rows.append(
            {
                "prompt": prompt,
                "pictures": [data_uri(p) for p in row],
                "judged": verdict is not None,
                "wrong": wrong if wrong or verdict is None or verdict["everything"] else ["assignment"],
                "unseen": bool(pictures.unseen[i]) if pictures.unseen else False,
            }
        )
    return rows


def caption_rows(pictures: ReportPictures | None) -> list[dict[str, Any]]:
    """Per picture: itself as data URI, what was said of it, and what of that is wrong."""
    if pictures is None or pictures.captioned is None:
        return []
    rows = []
    for picture, caption, verdict in zip(pictures.captioned, pictures.captions, pictures.caption_verdicts, strict=True):
        wrong = [name for name, right in verdict.items() if not right and name != "everything"]
        rows.append({"picture": data_uri(picture), "caption": caption, "wrong": wrong})
    return rows


def attribute_tables(results: Results) -> list[dict[str, Any]]:
    """What is right of every attribute: of pictures with and without guidance, and of captions."""
    found = []
    for section, title, bar in (
        ("reader", "Does the picture show what was asked?", "right"),
        ("reader_unguided", "The same without guidance", "right"),
        ("captions", "Does the caption say what is there?", "true"),
    ):
        table = results.get(section, {})
        rows = [
            {"name": name, "meaning": ATTRIBUTES[name][1], **row} for name, row in table.items() if name in ATTRIBUTES
        ]
        found += [{"section": section, "title": title, "bar": bar, "rows": rows}] if rows else []
    return found


def charts(runs: Mapping[str, Results]) -> list[Chart]:
    """Curves of every run for PSNR and SSIM; of the first run for what has a curve per level or attribute."""
    single = len(runs) == 1
    first = next(iter(runs.values()))
    found = []
    for section, unit, title in (("psnr", "dB", "PSNR"), ("ssim", "SSIM", "SSIM")):
        curves = [Curve("" if single else name, r[section]) for name, r in runs.items() if section in r]
        found.append((f"{title} against prefix length", curves, unit, section))
    if "probe" in first:
        chance = first["probe_chance"]["levels"]
        curves = [Curve(spelled(n), p, chance[n]) for n, p in first["probe"]["levels"].items()]
        found.append(("Linear probe accuracy by level", curves, "%", "probe"))
    for key, title in (
        ("image_to_caption_r1", "Picture → caption, R@1 by caption level"),
        ("caption_to_image_r1", "Caption → picture, R@1 by caption level"),
    ):
        curves = [
            Curve(spelled(n), {k: v[key] for k, v in by_k.items()}, first["retrieval_chance"][n][key])
            for n, by_k in first.get("retrieval", {}).items()
        ]
        found.append((title, curves, "%", "retrieval"))
    shown = ("count", "shape", "color", "relation", "everything")
    by_prefix = first.get("reader_by_prefix", {})
    curves = [Curve(spelled(name), by_prefix[name]) for name in shown if name in by_prefix]
    found.append(("Generated pictures that are right", curves, "%", "reader_by_prefix"))
    curves = [Curve(spelled(name), points) for name, points in first.get("captions_by_prefix", {}).items()]
    found.append(("Captions written from k tokens that are true", curves, "%", "captions_by_prefix"))
    for section, title in (
        ("prefix_truth", "Pictures drawn from k tokens that are right"),
        ("decoded_truth", "Pictures decoded from k tokens that are right"),
    ):
        levels = first.get(section, {}).get("levels", {})
        curves = [Curve(spelled(name), row["value"], row["chance"]["1"]) for name, row in levels.items()]
        found.append((title, curves, "%", section))
    return [
        Chart(title, Markup(svg), section)
        for title, curves, unit, section in found
        if (svg := chart(curves, unit, title))
    ]


def training_charts(runs: Mapping[str, Results]) -> list[Chart]:
    """One for each value that the first run wrote down while it trained, of every run that wrote it."""
    found = []
    for name in _first(runs).get("training", {}):
        having = {
            run: results["training"][name] for run, results in runs.items() if name in results.get("training", {})
        }
        curves = [Curve("" if len(runs) == 1 else run, points) for run, points in having.items()]
        found.append(Chart(spelled(name), Markup(chart(curves, "", spelled(name), over="images")), "training"))
    return found


def _first(mapping: Mapping[str, Any]) -> Any:
    return next(iter(mapping.values()))
