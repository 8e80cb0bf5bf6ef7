"""One self-contained HTML file with pictures, curves and numbers, and results.json with every number beside
it.

`results` holds any of these sections; a section that is missing is left out of the page:
  title, about          text; {what: value} shown under the title
  images, tokens        {"size", "test", "train"}; {"length", "dim"}
  psnr, ssim            {k: value}, k as text: "1", "2", "4", ... K
  probe, probe_chance   {"levels" | "labels": {name: {k: share}}}; {"levels" | "labels": {name: share}}
  retrieval, retrieval_chance, retrieval_candidates
                        {level: {k: {"image_to_caption_r1", ..._r5, "caption_to_image_r1", ..._r5}}};
                        {level: {...}}; {level: {"images", "captions"}}
  reader                {attribute: {"value", "low", "high", "chance", "real", "seen", "unseen",
  "chance_seen",
                        "chance_unseen", "prompts", "prompts_seen", "prompts_unseen"}}
  reader_rebuilt        {attribute: share}, of what the tokenizer alone makes of real pictures
  second_reader         {attribute: {"guided", "unguided", "rebuilt", "real"}}, by a reader never trained
  novelty               {"captions": {number of shapes | "all": share}, "distance": {"drawn", "held_out"}}
  by_shapes             {number of shapes: {"guided", "unguided", "rebuilt"}}, everything right by the first reader
  reader_unguided, captions
                        the same form: pictures without guidance; captions that the sequence model writes
  variety               {"reader", "reader_unguided": {"value", "real", "shapes"}}: spread of places within a prompt
  captions_right        share of all single attributes of captions
  reader_by_prefix      {attribute: {k: share}}
  samples               {"pictures", "network", "reference", "frechet", "frechet_infinity", "precision", "recall",
                        "inception_score": {"mean", "std"}}: a large set against real pictures
  captions_by_prefix    {level: {k: share}}
  prefix_truth, decoded_truth
                        {"levels" | "attributes": {name: {"value", "low", "high", "chance": {k: share}, "ceiling"}}}
  understanding         {"labels" | "levels": {name: {"chance": share, source: {"value", "low", "high", "layer"}}},
                        "by_layer": {source: {level: {block: share}}}, "left_out": {name: why}}
  zero_shot             {level: {"value", "low", "high", "chance", "candidates", "pictures"}}
  resampling            {"model" | "swapped" | "noise": {"attributes" | "labels": {name: {k: share}},
                        "psnr" | "std": {k: value}}, "chance" | "ceiling": {"attributes" | "labels": {name: share}}}
  forced                {attribute: {m: share}}
  capacity              {"alphabet", "tokens", "code_bits", "code_bits_are", "reader", "ways": {way: {glyphs: row}}},
                        row as `capacity_row` makes it
  training              {name: {images: value}}, images as text
  stages                {name: {"seconds", "images", "images_per_second"}}
  protocol              {section: sentences}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqtok.evaluation.report import (
    capacity_parts,
    kept_pictures,
    report_parts,
    report_tables,
    report_words,
    resampling_parts,
    understanding_parts,
)
from seqtok.evaluation.report.kept_pictures import ReportPictures, keep_pictures
from seqtok.grids import grid, redrawings, strip
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import atomic_write, leftovers_of, read_json

REPORT, RESULTS = "report.html", "results.json"
REDRAWN = "redrawn.png"
REPORT_FILES = (REPORT, RESULTS, kept_pictures.FILE, "strip.png", "generated.png", REDRAWN)
SCHEMA = 1


def merge(*sections: Mapping[str, Any]) -> dict[str, Any]:
    """Several runners' results as one; `stages`, `protocol` and `about` are united, other keys must not
    meet twice."""
    merged: dict[str, Any] = {"schema": SCHEMA}
    for section in sections:
        for name, value in section.items():
            if name in ("stages", "protocol", "about"):
                merged[name] = {**merged.get(name, {}), **value}
            elif name in merged and merged[name] != value:
                raise ValueError(f"two results for {name!r}")
            else:
                merged[name] = value
    return merged


def write_report(
    folder: Path,
    results: Mapping[str, Any],
    pictures: ReportPictures | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write report.html, results.json and the pictures as PNG into `folder`; returns the report's path.

    `others` are the results of further runs by name; they are drawn into the curves and set side by side.
    """
    folder = Path(folder)
    for leftover in (left for name in REPORT_FILES for left in leftovers_of(folder / name)):
        leftover.unlink(missing_ok=True)  # of a writer that was killed
    page = render_report(results, pictures, others or {})
    write_results(folder, results)
    if pictures is not None:
        write_pictures(folder, pictures)
        keep_pictures(folder, pictures)
    with atomic_write(folder / REPORT, "w") as stream:
        stream.write(page)
    return folder / REPORT


def write_results(folder: Path, results: Mapping[str, Any]) -> Path:
    """Write `folder`/results.json, in the order of `results` (coarse to fine, short to long); returns its path."""
    path = Path(folder) / RESULTS
    with atomic_write(path, "w") as stream:
        json.dump({"schema": SCHEMA, **results}, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")
    return path


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of a folder. Raises DataError when it is missing or of another version."""
    path = Path(folder) / RESULTS
    results = read_json(path)
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise DataError(f"{path}: not results that this version of seqtok reads; evaluate the run again")
    return results


def write_pictures(folder: Path, pictures: ReportPictures) -> None:
    """strip.png (a row of one image at k = 1, 2, 4, ... K beside the original, below it what is drawn),
    generated.png (row = prompt) and redrawn.png (the first tokens kept, the rest drawn anew)."""
    sheets = {"strip.png": strip(pictures.originals, pictures.rebuilt, pictures.prefixes, drawn=pictures.drawn)}
    if pictures.generated is not None and len(pictures.generated):
        names = [f"{k}" for k in pictures.prefixes]
        sheets["generated.png"] = grid([list(row) for row in pictures.generated], names)
    if pictures.redrawn is not None:
        sheets[REDRAWN] = redrawings(pictures.originals, pictures.redrawn, pictures.kept)
    for name, sheet in sheets.items():
        with atomic_write(Path(folder) / name) as stream:
            sheet.save(stream, "PNG", optimize=True)


def render_report(
    results: Mapping[str, Any],
    pictures: ReportPictures | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The page as text. Whatever comes from data (captions, names) is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(report_words.FILTERS)
    runs = {str(results.get("title", "this run")): results, **(others or {})}
    return environment.get_template("report.html.j2").render(
        title=results.get("title", "seqtok report"),
        about=results.get("about", {}),
        protocol=results.get("protocol", {}),
        headlines=report_parts.headlines(results),
        strips=report_parts.strip_rows(pictures),
        generated=report_parts.generated_rows(pictures),
        prefixes=list(pictures.prefixes) if pictures else [],
        captions=report_parts.caption_rows(pictures),
        attributes=report_parts.attribute_tables(results),
        second=report_tables.second_opinions(results),
        variety={name: row for name, row in results.get("variety", {}).items() if row["shapes"]},
        charts=report_parts.charts(runs),
        capacity=capacity_parts.capacity_charts(runs),
        training=report_parts.training_charts(runs),
        comparison=report_tables.comparison(runs),
        stages=results.get("stages", {}),
        understood=understanding_parts.understanding_tables(results),
        blocks=understanding_parts.block_charts(results),
        redrawn=resampling_parts.redrawn_rows(pictures),
        kept=list(pictures.kept) if pictures else [],
        resampled=resampling_parts.resampling_charts(results),
        tables=[
            *report_tables.of_a_set(results),
            *report_tables.number_tables(results),
            *understanding_parts.label_tables(results),
            *resampling_parts.resampling_tables(results),
            *capacity_parts.capacity_tables(results),
        ],
    )
