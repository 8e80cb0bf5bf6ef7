"""seqtok evaluate resampling: what the first tokens of a picture fix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from data_pipelines.scenes import make_scene
from seqtok.evaluation.report.kept_pictures import keep_pictures
from seqtok.evaluation.report.report import REDRAWN, merge, write_pictures
from seqtok.evaluation.runners.generation import pictures_for_report
from seqtok.evaluation.runners.resampling import ResamplingConfig, evaluate_resampling
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.evaluation.scenes.resampling import kept_tokens
from seqtok.pictures.sample import load_pair
from seqtok.runs.judge.shown import keep_results, print_table


def judge_resampling(
    generator_model: str,
    tokenizer_model: str,
    reader_folder: Path,
    scenes: int,
    config: ResamplingConfig,
    seed: int,
    out: Path | None,
) -> dict[str, Any]:
    """`seed`: of the scenes. With `out` the pictures of a report are kept beside the results."""
    generator, tokenizer = load_pair(generator_model, tokenizer_model)
    reader = load_or_train_reader(reader_folder, ReaderConfig())
    held_out = [make_scene(seed, index, "test") for index in range(scenes)]
    size, spec = tokenizer.config.image_size, generator.spec
    kept = kept_tokens(spec.length, generator.sequence.groups or spec.groups)
    results, redrawn = evaluate_resampling(tokenizer, generator, held_out, reader, size, kept, config)
    _show(results)
    if out is not None:
        pictures = pictures_for_report(tokenizer, real_pictures(held_out[: len(redrawn)], size))
        pictures = replace(pictures, kept=kept, redrawn=redrawn)
        write_pictures(out, pictures)
        keep_pictures(out, pictures)
        typer.echo(str(out / REDRAWN))
    keep_results(out, merge(results))
    return results


def _show(results: dict[str, Any]) -> None:
    found, chance = results["resampling"], results["resampling"]["chance"]
    ways = {"model": "drawn by the model", "swapped": "of another picture", "noise": "noise"}
    for way, how in ways.items():
        parts = ((name, part) for part in ("attributes", "labels") for name in found[way][part])
        rows = {
            name if part == "attributes" else f"label {name}": {"chance": chance[part][name], **found[way][part][name]}
            for name, part in parts
        }
        print_table(f"share that stays where k tokens are kept and the rest is {how}", rows)
    pixels = {f"{name}, {way}": found[way][name] for name in ("psnr", "std") for way in ways}
    print_table("PSNR in dB to the original, and std over redrawings in levels of 255, k tokens kept", pixels)
    print_table(
        "share right: the first m tokens are the true ones, the rest is drawn for the prompt", results["forced"]
    )
