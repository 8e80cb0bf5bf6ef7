"""seqtok evaluate set: tens of thousands of drawn pictures, as a file and against real ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from ar_model import SeqGenerator
from data_pipelines.reading.image_text import sample_split
from data_pipelines.reading.picture_reader import LoaderConfig
from seqtok.evaluation.eyes.networks import FeatureNetwork, open_network
from seqtok.evaluation.eyes.samples import Reference, features_of_set, judge_samples, reference_moments, require_its_own
from seqtok.evaluation.metrics.sets.frechet import moments
from seqtok.evaluation.report import protocol
from seqtok.pictures.sample import load_pair, read_prompts
from seqtok.pictures.sample_set import SampleSetConfig, draw_set, holds_pictures, pictures_of_file
from seqtok.runs.judge.shown import keep_results, print_table
from seqtok_core.training import World

_SAID_EVERY = 30  # seconds


def judge_set(
    generator_model: str,
    tokenizer_model: str,
    prompts: Path,
    network: str,
    reference: Path,
    split: str,
    config: SampleSetConfig,
    out: Path,
) -> dict[str, Any]:
    """`reference`: an .npz, or a folder of image shards, of which so many pictures of `split` are taken."""
    words = read_prompts(prompts)
    generator, tokenizer = load_pair(generator_model, tokenizer_model)
    eye = open_network(network, World.from_environment().device)
    size = tokenizer.config.image_size
    real = _reference(reference, split, eye, config.count, generator, size)
    require_its_own(real, eye, size)
    file = draw_set(generator, tokenizer, words, config, out, _said("drawn", config.count))
    made = features_of_set(eye, pictures_of_file(file), _said("looked at", config.count))
    found = judge_samples(made, eye, real, config.seed)
    asked = {**config.model_dump(mode="json"), "prompts": len(words)}
    said = protocol.of_samples(found, asked, generator.head_kind)
    results = {"samples": {**found, "asked": asked}, "protocol": said}
    shown = {name: found.get(name) for name in ("frechet", "frechet_infinity", "precision", "recall")}
    shown |= {"inception score": found.get("inception_score", {}).get("mean")}
    print_table(f"{len(made)} pictures against {found['reference']}", {network.partition(":")[0]: shown})
    if found["note"]:
        typer.echo(found["note"], err=True)
    keep_results(out, results)
    return results


def _reference(
    place: Path, split: str, eye: FeatureNetwork, count: int, generator: SeqGenerator, size: int
) -> Reference:
    if place.is_dir():
        loader = LoaderConfig(image_size=size)
        parts = (batch.images for batch in sample_split(place, split, generator.captions, count, loader))
        features = features_of_set(eye, parts)
        return Reference(moments(features), features, f"{len(features)} pictures of {place}, split {split}")
    known = reference_moments(place)
    if known is not None and not holds_pictures(place):
        return Reference(known, None, place.name)
    features = features_of_set(eye, pictures_of_file(place))
    return Reference(known or moments(features), features, place.name)


def _said(done: str, count: int) -> Callable[[int], None]:
    """Every so often a line."""
    last = time.monotonic()

    def say(number: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SAID_EVERY:
            last = time.monotonic()
            typer.echo(f"{number} of {count} pictures {done}", err=True)

    return say
