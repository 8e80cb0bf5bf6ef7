"""Who judges drawn pictures: the reader of drawn scenes, or for other pictures an eye that names their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from ar_model import SeqGenerator
from ar_model.sampling import SampleConfig
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.samples import ImageTextBatch
from data_pipelines.scenes import make_scene
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.eyes.labels import judge_labels, label_truth
from seqtok.evaluation.eyes.training import eye_id, load_or_train_eye
from seqtok.evaluation.metrics.sets.frechet import frechet_distance, frechet_infinity_of_pairs, frechet_note
from seqtok.evaluation.metrics.sets.manifolds import precision_recall
from seqtok.evaluation.report.kept_pictures import ReportPictures
from seqtok.evaluation.report.report import merge
from seqtok.evaluation.runners.generation import (
    GenerationConfig,
    evaluate_generation,
    evaluate_prefixes,
    pictures_for_report,
)
from seqtok.evaluation.scenes.prefix_truth import by_completion
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.runs.judge.orders.suite import SuiteConfig
from seqtok_core.foundation import fingerprint

_SHOWN = 8  # held-out pictures of a strip
_NEIGHBOURS = 3  # that a ball of a manifold reaches to
_LINE = 4  # pictures that a line of Frechet distances needs


class Sees(Protocol):
    """A network that makes features of pictures (B, 3, H, W) uint8 -> (B, F), and the hash of its weights."""

    @property
    def identity(self) -> str: ...

    @property
    def features(self) -> Callable[[Tensor], Tensor]: ...


class Eye(Sees, Protocol):
    """The eye of a set of pictures, which also reads what a sequence model draws."""

    def drawn(
        self, tokenizer: SeqTokenizer, generator: SeqGenerator, test: ImageTextBatch
    ) -> tuple[dict[str, Any], ReportPictures]:
        """Sections of results.json on pictures of prompts and of prefixes, and pictures."""
        ...


def open_eye(suite: SuiteConfig, levels: Mapping[str, Sequence[str]], size: int) -> Eye:
    """That of the suite's folder, trained there where there is none."""
    if read_manifest(suite.data).name == "scenes":
        return _OfScenes(suite)
    return _OfLabels(suite, levels, size)


class _OfScenes:
    def __init__(self, suite: SuiteConfig) -> None:
        self._asked = suite.judge
        self._reader = load_or_train_reader(suite.eye, suite.judge.reader)

    @property
    def identity(self) -> str:
        return fingerprint.of_model(self._asked.reader.model_dump(mode="json"), self._reader.state_dict())

    @property
    def features(self) -> Callable[[Tensor], Tensor]:
        return self._reader.features

    def drawn(
        self, tokenizer: SeqTokenizer, generator: SeqGenerator, test: ImageTextBatch
    ) -> tuple[dict[str, Any], ReportPictures]:
        asked, size = self._asked, tokenizer.config.image_size
        scenes = [make_scene(0, index, "test") for index in range(max(asked.prompts, asked.drawn_scenes))]
        config = GenerationConfig(sample=asked.chosen.sample, seed=asked.seed)
        made, generated = evaluate_generation(tokenizer, generator, scenes[: asked.prompts], self._reader, config)
        known = scenes[: asked.drawn_scenes]
        truth, draw = evaluate_prefixes(tokenizer, generator, known, self._reader, size, asked.prefix_truth)
        return merge(made, truth), pictures_for_report(tokenizer, test.images[:_SHOWN], generated, _SHOWN, draw)


class _OfLabels:
    def __init__(self, suite: SuiteConfig, levels: Mapping[str, Sequence[str]], size: int) -> None:
        self._asked, self._levels = suite.judge, levels

        def read() -> ImageTextBatch:
            captions = CaptionTokenizer.load(suite.data / CAPTIONS_FILE)
            return read_split(suite.data, "train", captions, suite.judge.eye_pictures, LoaderConfig(image_size=size))

        classes = {name: len(words) for name, words in read_manifest(suite.data).classes.items()}
        self._eye = load_or_train_eye(suite.eye, suite.judge.eye, classes, read)

    @property
    def identity(self) -> str:
        return eye_id(self._eye)

    @property
    def features(self) -> Callable[[Tensor], Tensor]:
        return self._eye.features

    def drawn(
        self, tokenizer: SeqTokenizer, generator: SeqGenerator, test: ImageTextBatch
    ) -> tuple[dict[str, Any], ReportPictures]:
        asked, truth = self._asked, self._asked.prefix_truth
        prompted, known = _first(test, asked.prompts), _first(test, asked.drawn_scenes)
        sample, levels = asked.chosen.sample, self._levels
        made, _ = judge_labels(tokenizer, generator, prompted, self._eye, sample, asked.seed, levels)
        draw = by_completion(tokenizer, generator, truth.sample, truth.candidates)
        shown = label_truth(tokenizer, draw, known, self._eye, levels, truth.seeds)
        return merge(made, shown), pictures_for_report(tokenizer, test.images[:_SHOWN], draw=draw)


def judge_sets(
    tokenizer: SeqTokenizer,
    generator: SeqGenerator,
    eyes: Mapping[str, Sees],
    real: ImageTextBatch,
    sample: SampleConfig,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Pictures of the captions as a set beside the pictures that have them, with and without guidance -> by eye its
    `identity`, and as it sees them

    `frechet`: distances from the very pictures whose captions were drawn, as papers on COCO measure: so they can lie
    below that of two independent sets. `infinity_of_pairs`: for endlessly many; beside them what the tokenizer alone
    loses, two halves of the real pictures (half as many make it larger), and a `note` where all are too few;
    `manifold`: precision and recall.
    """
    prompts = [captions[-1] for captions in real.captions]
    plain = sample.changed(guidance=1.0, temperature=1.0)
    latents = {"rebuilt": encode_all(tokenizer, real.images)}
    for how, config in (("guided", sample), ("unguided", plain)):
        latents[how] = generator.sample(prompts, config, seed=seed)
    made = {how: decode_all(tokenizer, own, own.shape[1]) for how, own in latents.items()}
    found = {}
    for name, eye in eyes.items():
        features = {how: eye.features(pictures) for how, pictures in made.items()}
        found[name] = {"identity": eye.identity, **_distances(eye.features(real.images), features, seed)}
    return found


def _distances(target: Tensor, made: Mapping[str, Tensor], seed: int) -> dict[str, Any]:
    """Features (N, F) of the real pictures and of what is made of them, see `judge_sets`."""
    half = len(target) // 2
    frechet: dict[str, Any] = {
        "note": frechet_note(len(target), target.shape[1]),
        "halves": frechet_distance(target[:half], target[half:]),
        "infinity_of_pairs": {},
    }
    manifold: dict[str, Any] = {}
    for how, own in made.items():
        frechet[how] = frechet_distance(own, target)
        if len(own) >= _LINE:
            frechet["infinity_of_pairs"][how] = frechet_infinity_of_pairs(own, target, seed=seed)
        if len(own) > _NEIGHBOURS:
            manifold[how] = precision_recall(target, own, _NEIGHBOURS)._asdict()
    return {"frechet": frechet, "manifold": manifold}


def _first(batch: ImageTextBatch, count: int) -> ImageTextBatch:
    """The first samples of a batch, with what judging needs."""
    tensors = {
        name: getattr(batch, name)[:count]
        for name in ("images", "text_ids", "level_mask", "caption_ids", "epoch", "index")
    }
    labels = {name: own[:count] for name, own in batch.labels.items()}
    return replace(batch, **tensors, labels=labels, keys=batch.keys[:count], captions=batch.captions[:count])
