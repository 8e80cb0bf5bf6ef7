"""One contestant of a suite with one seed: its trainings, whichever are missing, and its judgement.

python -m seqtok.runs.judge.orders.contest SUITE.json NAME SEED
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ar_model import SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.samples import ImageTextBatch, to_model
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import encode_all
from seqtok.evaluation.eyes.networks import open_network
from seqtok.evaluation.metrics.probes import early_probes
from seqtok.evaluation.metrics.semantics import hits_by_level
from seqtok.evaluation.metrics.state_probes import Splits
from seqtok.evaluation.ordering.concordance import judge_order
from seqtok.evaluation.report.kept_pictures import ReportPictures
from seqtok.evaluation.report.report import RESULTS, merge, write_report
from seqtok.evaluation.runners.tokenizer import evaluate_tokenizer
from seqtok.evaluation.runners.understanding import LabelledLatents, evaluate_understanding, held_out_for_layers
from seqtok.export.run import export_latents
from seqtok.pictures.sample import load_pair
from seqtok.runs.base import TrainingRun
from seqtok.runs.coevolution.run import GENERATOR, TOKENIZER
from seqtok.runs.judge.orders.by_eye import Sees, judge_sets, open_eye
from seqtok.runs.judge.orders.suite import SuiteConfig, training_flops
from seqtok.runs.train import train_run
from seqtok_core.foundation.errors import DataError, SeqtokError
from seqtok_core.foundation.files import read_json
from seqtok_core.training.costs.flops import new_counter

_OWN = "own eye"  # of the set of pictures
_STEADY = 1e-4  # of latents of unit RMS, between two batches


def contest(suite: SuiteConfig, name: str, seed: int) -> Path:
    """Train and judge -> the folder with its results.json. What is there already is not made again."""
    folder = suite.folder(name, seed)
    if (folder / RESULTS).is_file():
        return folder
    generator, tokenizer = _train(suite, name, seed)
    results, pictures = judge_contestant(suite, name, str(generator), str(tokenizer))
    runs = suite.runs(name, seed)
    facts = {
        "title": f"{name}, seed {seed}",
        "contestant": name,
        "seed": seed,
        "trained": {part: run.train.images for part, run in runs.items()},
        "training_flops": sum(map(training_flops, runs.values())),
    }
    write_report(folder, {**results, **facts}, pictures)
    return folder


def _train(suite: SuiteConfig, name: str, seed: int) -> tuple[Path, Path]:
    """Whatever is missing -> the folders of both models, the sequence model's first."""
    runs = suite.runs(name, seed)
    if "together" in runs:
        both = _model_of(runs["together"])
        tokenizer, generator = both / TOKENIZER, both / GENERATOR
    else:
        tokenizer = generator = _model_of(runs["tokenizer"])
    if "generator" in runs:
        export_latents(tokenizer, suite.data, suite.folder(name, seed) / "latents")
        generator = _model_of(runs["generator"])
    return generator, tokenizer


def _model_of(run: TrainingRun) -> Path:
    """Of a finished training, which this is first, if need be."""
    model = run.out / "model"
    if not model.is_dir():
        train_run(run)
    return model


def judge_contestant(
    suite: SuiteConfig, name: str, generator_model: str, tokenizer_model: str
) -> tuple[dict[str, Any], ReportPictures]:
    """Every figure of one tokenizer and its sequence model, and pictures of it."""
    asked = suite.judge
    generator, tokenizer = load_pair(generator_model, tokenizer_model)
    size = LoaderConfig(image_size=tokenizer.config.image_size)
    captions = CaptionTokenizer.load(suite.data / CAPTIONS_FILE)
    wanted = (("train", asked.fit), ("test", asked.test), (asked.pictures_split, asked.pictures))
    train, test, held_out = (read_split(suite.data, split, captions, count, size) for split, count in wanted)
    require_steady(tokenizer, test.images[:64])
    names, meaning = suite.levels()
    levels = names or {label: (label,) for label in test.labels}
    eye = open_eye(suite, levels, tokenizer.config.image_size)
    bare = replace(test, labels={}, captions=test.captions if suite.contestant(name).taught else [])
    seen = evaluate_tokenizer(tokenizer, bare, bare, levels=names, meaning=meaning)
    drawn, pictures = eye.drawn(tokenizer, generator, test)
    known, asked_of = (LabelledLatents.of_batch(part, encode_all(tokenizer, part.images)) for part in (train, test))
    parts = Splits(*held_out_for_layers(known), asked_of)
    understood = evaluate_understanding(generator, parts, asked.understanding, levels=levels, meaning=meaning)
    facts = {
        "order": _order(known, asked_of, levels, asked.seed),
        "early": _early(parts, levels, asked.seed),
        "cost": _cost(tokenizer, generator, test.images[:1]),
        "hashes": {
            "tokenizer": generator.spec.tokenizer_id,
            "generator": generator.model_id,
            "eye": eye.identity,
        },
    }
    eyes: dict[str, Sees] = {_OWN: eye, **{network: open_network(network) for network in asked.networks}}
    sets = judge_sets(tokenizer, generator, eyes, held_out, asked.chosen.sample, asked.seed)
    own = sets.pop(_OWN)
    facts |= {"frechet": own["frechet"], "manifold": own["manifold"], "networks": sets}
    return merge(seen, drawn, understood, facts), pictures


def require_apart(train: Iterable[ImageTextBatch], test: ImageTextBatch) -> None:
    """Raises DataError naming a held-out picture whose pixels are in the training split: what is known by heart is not
    judged."""
    known = {_picture_hash(picture) for batch in train for picture in batch.images}
    for key, picture in zip(test.keys, test.images, strict=True):
        if _picture_hash(picture) in known:
            raise DataError(
                f"{key}: this held-out picture is a training picture, too; a judgement of it says nothing. Prepare the "
                "data again: `prepare` drops equal pictures across splits"
            )


def require_steady(tokenizer: Any, pictures: Tensor) -> None:
    """Raises SeqtokError where a picture's latents change with the pictures beside it: they are to be made of its own
    pixels and nothing else."""
    alone = encode_all(tokenizer, pictures, batch=1)
    backwards = encode_all(tokenizer, pictures.flip(0), batch=len(pictures)).flip(0)
    difference = float((alone - backwards).abs().max())
    if difference > _STEADY:
        raise SeqtokError(
            f"this tokenizer gives a picture other latents in other company (they differ by {difference:.2g}): "
            "it is judged by what it says of pixels alone"
        )


def _order(known: LabelledLatents, held_out: LabelledLatents, levels: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Probes by prefix and the concordance of what they read."""
    hits, chance = hits_by_level(known.latents, known.labels, held_out.latents, held_out.labels, levels)
    return judge_order(hits, prefix_lengths(known.latents.shape[1]), chance, seed)


def _early(parts: Splits[LabelledLatents], levels: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What a small network reads beside a linear probe, of the first latent and of all: k -> level -> both."""
    labels = Splits(*(part.labels for part in parts))
    return {
        str(k): early_probes(Splits(*(part.latents[:, :k].flatten(1) for part in parts)), labels, levels, seed)
        for k in sorted({1, parts.test.latents.shape[1]})
    }


def _cost(tokenizer: SeqTokenizer, generator: SeqGenerator, picture: Tensor) -> dict[str, float]:
    """Weights, and operations of one picture there and back."""
    with new_counter() as counter:
        tokenizer.decode(tokenizer.encode(to_model(picture.to(tokenizer.device))))
    own = [p for name, p in tokenizer.named_parameters() if not name.startswith(("text.", "readout.", "writer."))]
    return {
        "tokenizer_parameters": sum(p.numel() for p in own),
        "generator_parameters": sum(p.numel() for p in generator.parameters()),
        "tokenizer_flops": counter.get_total_flops(),
        "values": generator.spec.length * generator.spec.dim,
    }


def _picture_hash(picture: Tensor) -> bytes:
    return hashlib.sha256(picture.contiguous().numpy().tobytes()).digest()


def main() -> None:
    """For a suite, which starts every contestant as a process of its own."""
    resolved, name, seed = sys.argv[1:]
    try:
        print(contest(SuiteConfig.parse(read_json(Path(resolved)), resolved), name, int(seed)))
    except SeqtokError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
