"""seqtok evaluate understanding: what a sequence model that draws knows of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import typer
from pydantic import model_validator

from ar_model import SeqGenerator
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.latent_text import read_latents
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.scenes import make_scene
from data_pipelines.shards.manifest import FILE, Manifest, read_manifest
from seq_tokenizer import LatentSpec, SeqTokenizer
from seq_tokenizer.prefixes import encode_all
from seqtok.evaluation.metrics.state_probes import Splits
from seqtok.evaluation.report.report import merge
from seqtok.evaluation.runners.captions import CaptionEvaluation, evaluate_captions
from seqtok.evaluation.runners.understanding import (
    LabelledLatents,
    UnderstandingConfig,
    evaluate_understanding,
    held_out_for_layers,
)
from seqtok.pictures.sample import load_pair
from seqtok.runs.judge.models import levels_of, of_scenes
from seqtok.runs.judge.shown import keep_results, print_attributes, print_table
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import DataError

_VAL = "val"


class UnderstandingRequest(Config):
    """What is asked of which pictures."""

    split: str = "test"  # is judged
    fit_split: str = "train"  # probes are fitted on it
    val_split: str | None = None  # layers are chosen on it; None: val where there is one, else part of `fit_split`
    limit: int = 1000  # most pictures to judge
    fit_limit: int = 5000  # most pictures to fit on
    scenes: int = 200  # drawn scenes whose captions are judged
    scene_seed: int = 0
    judged: UnderstandingConfig = UnderstandingConfig()

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.fit_split == self.split:
            raise ValueError(f"fit_split={self.fit_split}: what is fitted on cannot be judged; name two splits")
        if self.val_split in (self.split, self.fit_split):
            raise ValueError(
                f"val_split={self.val_split}: blocks are chosen on pictures that are neither fitted on nor judged; "
                "name another split, or none"
            )
        return self


def judge_understanding(
    generator_model: str, tokenizer_model: str, data: Path, request: UnderstandingRequest, out: Path | None
) -> dict[str, Any]:
    """`data`: image shards, or latents that the tokenizer left."""
    generator, tokenizer = load_pair(generator_model, tokenizer_model)
    manifest = read_manifest(data) if (data / FILE).is_file() else None
    parts = _parts(generator, tokenizer, data, manifest, request)
    levels, meaning = levels_of(data)
    results = evaluate_understanding(generator, parts, request.judged, levels=levels, meaning=meaning)
    if not results["understanding"]["labels"] and "zero_shot" not in results:
        why = "; ".join(f"{name}: {reason}" for name, reason in results["understanding"]["left_out"].items())
        raise DataError(f"{data}: holds nothing that understanding is judged by ({why or 'no labels and no captions'})")
    if generator.writes and not (manifest is not None and of_scenes(manifest)):
        results["understanding"]["left_out"]["captions that it writes"] = "only those of drawn scenes can be read back"
    elif generator.writes:
        scenes = [make_scene(request.scene_seed, index, "test") for index in range(request.scenes)]
        said, _ = evaluate_captions(tokenizer, generator, scenes, tokenizer.config.image_size, CaptionEvaluation())
        results = merge(results, said)
    _show(results, request)
    keep_results(out, results)
    return results


def _parts(
    generator: SeqGenerator,
    tokenizer: SeqTokenizer,
    data: Path,
    manifest: Manifest | None,
    request: UnderstandingRequest,
) -> Splits[LabelledLatents]:
    if manifest is not None and manifest.kind == "latents":
        spec = LatentSpec.from_json(manifest.latent_spec or {}, str(data / FILE))
        generator.spec.require_same(spec, "the sequence model", str(data))

    def read(split: str, limit: int) -> LabelledLatents:
        most = {"max_tokens": generator.config.max_text_tokens}
        if manifest is not None and manifest.kind == "latents":
            stored = read_latents(data, split, generator.captions, limit, ReadConfig.parse(most))
            return LabelledLatents.of_batch(stored, stored.latents)
        loader = LoaderConfig.parse({**most, "image_size": tokenizer.config.image_size})
        pictures = read_split(data, split, generator.captions, limit, loader)
        return LabelledLatents.of_batch(pictures, encode_all(tokenizer, pictures.images))

    test, known = read(request.split, request.limit), read(request.fit_split, request.fit_limit)
    free = manifest is not None and _VAL in manifest.splits and _VAL not in (request.split, request.fit_split)
    own = request.val_split or (_VAL if free else None)
    return Splits(*held_out_for_layers(known), test) if own is None else Splits(known, read(own, request.limit), test)


def _show(results: dict[str, Any], request: UnderstandingRequest) -> None:
    found = results["understanding"]
    for part in ("levels", "labels"):
        if found[part]:
            rows = {
                name: {source: cell["value"] if isinstance(cell, dict) else cell for source, cell in row.items()}
                for name, row in found[part].items()
            }
            print_table(f"accuracy of linear probes by {part[:-1]}", rows)
    if "zero_shot" in results:
        print_table("the likeliest of a level's captions is right", results["zero_shot"])
    if "captions" in results:
        print_attributes(f"share of captions of {request.scenes} pictures that are right", results["captions"])
    for name, why in found["left_out"].items():
        typer.echo(f"left out: {name}: {why}")
