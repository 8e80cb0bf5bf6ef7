"""The whole chain in one command. Every stage is one that a user can call alone, and continues after a kill.

Shapes: K latents, D channels.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import typer

from ar_model import SeqGenerator
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.scenes import make_scene
from data_pipelines.shards.output import clear_output, refuse_used
from data_pipelines.sources.base import Source
from data_pipelines.sources.drawn import ScenesSource
from seqtok.evaluation.report.kept_pictures import ReportPictures
from seqtok.evaluation.report.report import REPORT_FILES, merge, write_report
from seqtok.evaluation.runners.captions import evaluate_captions
from seqtok.evaluation.runners.generation import evaluate_generation, evaluate_prefixes, pictures_for_report
from seqtok.evaluation.runners.tokenizer import SCENE_LEVELS, evaluate_tokenizer
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.novelty import novelty
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.evaluation.scenes.scoring import scene_meaning
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok.export.run import export_latents
from seqtok.pictures.verifier import prompt_score
from seqtok.runs.demo.config import DemoConfig
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.judge.models import load_tokenizer
from seqtok.runs.settings import find_config, precision_words, read_values
from seqtok.runs.tokenizer import TokenizerRun
from seqtok.runs.train import train_run
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import is_log, read_json, require_own_place, storage_errors, write_json
from seqtok_core.foundation.model_folder import MODEL_FILES
from seqtok_core.training import TrainResult
from seqtok_core.training.run_folder import clear_run, refuse_foreign

_STAGES = "stages.json"
_SHOWN = 12  # held-out pictures in the strip
_FIT = 5000  # training pictures that probes are fitted on


def run_demo(config: str, out: Path, overrides: Sequence[str], overwrite: bool) -> Path:
    """Data, vocabulary, tokenizer, export, sequence model, reader, judgement, report. Returns the report's path."""
    settings = DemoConfig.parse(read_values(config, overrides), config)
    if overwrite:
        _clear(out)
    folders = {name: out / name for name in ("data", "tokenizer", "latents", "generator", "reader")}
    tokenizer_run, generator_run = _runs(settings, find_config(config).parent, folders)
    stages = _Stages(out)
    with stages.stage("draw scenes", settings.train + settings.test):
        _draw(settings, folders["data"], overwrite)
    stages.trained("train tokenizer", train_run(tokenizer_run))
    with stages.stage("encode scenes", settings.train + settings.test):
        export_latents(folders["tokenizer"] / "model", folders["data"], folders["latents"], overwrite=overwrite)
    stages.trained("train sequence model", train_run(generator_run))
    with stages.stage("train reader", settings.reader.images):
        reader = load_or_train_reader(folders["reader"], settings.reader)
    results, pictures = _judge(settings, folders, reader)
    results = merge(
        results,
        {"stages": stages.stages, "about": _about(tokenizer_run, generator_run, folders), "title": "seqtok demo"},
    )
    return write_report(out / "report", results, pictures)


def _runs(settings: DemoConfig, beside: Path, folders: dict[str, Path]) -> tuple[TokenizerRun, GeneratorRun]:
    def named(name: str) -> str:
        return str(beside / name) if (beside / name).is_file() else name

    precision, model = precision_words(settings.precision), folders["tokenizer"] / "model"
    first, second = named(settings.tokenizer), named(settings.generator)
    its = [f"out={folders['tokenizer']}", f"data.folder={folders['data']}", *precision]
    tokenizer = TokenizerRun.parse(read_values(first, its), first)
    its = [f"out={folders['generator']}", f"data.folder={folders['latents']}", f"tokenizer={model}", *precision]
    generator = GeneratorRun.parse(read_values(second, its), second)
    if tokenizer.model.image_size != settings.image_size:
        raise ConfigError(
            f"image_size={settings.image_size}, but {settings.tokenizer} has {tokenizer.model.image_size}"
        )
    return tokenizer, generator


def _draw(settings: DemoConfig, folder: Path, overwrite: bool) -> None:
    counts: dict[Literal["train", "test"], int] = {"train": settings.train, "test": settings.test}
    sources: dict[str, Source] = {s: ScenesSource(s, n, settings.image_size, settings.seed) for s, n in counts.items()}
    plan = PrepareConfig(name="scenes", size=settings.image_size, form="png", processes=settings.processes)
    prepare(sources, folder, plan, overwrite=overwrite)
    if not (folder / CAPTIONS_FILE).is_file():
        train_vocabulary(folder, settings.vocabulary)


def _judge(
    settings: DemoConfig, folders: dict[str, Path], reader: SceneReader
) -> tuple[dict[str, Any], ReportPictures]:
    tokenizer, captions = load_tokenizer(folders["tokenizer"] / "model")
    train = read_split(folders["data"], "train", captions, _FIT)
    test = read_split(folders["data"], "test", captions)
    seen = evaluate_tokenizer(tokenizer, train, test, levels=SCENE_LEVELS, meaning=scene_meaning)
    generator = SeqGenerator.from_pretrained(folders["generator"] / "model").to(tokenizer.device)
    scenes = [make_scene(settings.seed, index, "test") for index in range(settings.prompts)]
    score = partial(prompt_score, generator, tokenizer, search=settings.generation.search)
    made, generated = evaluate_generation(tokenizer, generator, scenes, reader, settings.generation, score)
    known = read_split(folders["data"], "train", captions)
    real = real_pictures(scenes, settings.image_size)
    said_before = {pyramid[-1] for pyramid in known.captions}
    new = {"novelty": novelty(scenes, generated.pictures[:, -1], real, known.images, said_before)}
    asked = settings.prefix_truth
    truth, draw = evaluate_prefixes(tokenizer, generator, scenes, reader, settings.image_size, asked)
    said: dict[str, Any] = {}
    captioned = None
    if generator.writes:
        said, captioned = evaluate_captions(tokenizer, generator, scenes, settings.image_size, settings.captions)
    pictures = pictures_for_report(tokenizer, test.images[:_SHOWN], generated, _SHOWN, draw, captioned)
    return merge(seen, made, new, truth, said), pictures


def _about(tokenizer: TokenizerRun, generator: GeneratorRun, folders: dict[str, Path]) -> dict[str, str]:
    model = tokenizer.model
    bits = load_tokenizer(folders["tokenizer"] / "model")[0].bottleneck.bits(model.num_latents)
    return {
        "tokens": f"{model.num_latents} of {model.latent_dim} channels, at most {bits:.0f} bits through their noise",
        "tokenizer": f"{model.encoder.kind}, {model.encoder_layers} + {model.decoder_layers} layers of width "
        f"{model.width}, {tokenizer.train.images:,} images",
        "sequence model": f"{generator.model.depth} layers of width {generator.model.width}, "
        f"{generator.train.images:,} sequences",
        "peak memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB",
    }


def _clear(out: Path) -> None:
    """Remove what a demo wrote, each part as its own command would, in a folder that a demo made: anybody else's
    `data` is not ours to delete. The list of stages goes last, as a demo is known by it."""
    require_own_place(out)
    foreign = out.is_dir() and not all(is_log(entry) for entry in out.iterdir())
    if foreign and not (out / _STAGES).is_file():
        raise DataError(f"{out}: holds files that no demo wrote; choose another folder")
    data, runs = [out / "data", out / "latents"], [out / "tokenizer", out / "generator"]
    for folder in data:
        refuse_used(folder, {}, overwrite=True, resume="auto")
    for folder in runs:
        refuse_foreign(folder, overwrite=True)
    for folder in data:
        clear_output(folder)
    for folder in runs:
        clear_run(folder)
    with storage_errors(out):
        for path in [out / "reader" / name for name in MODEL_FILES] + [out / "report" / name for name in REPORT_FILES]:
            path.unlink(missing_ok=True)
        (out / _STAGES).unlink(missing_ok=True)


class _Stages(Stopwatch):
    """Seconds of every stage, kept in a file: a demo that was continued reports what each stage took at first."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._path = out / _STAGES
        self._kept = read_json(self._path) if self._path.is_file() else {}

    @contextmanager
    def stage(self, name: str, images: int) -> Iterator[None]:
        with super().stage(name, images):
            yield
        self._say(name)

    def trained(self, name: str, result: TrainResult | None) -> None:
        """Note a training, whose seconds count every part of a run that was continued."""
        if result is not None:
            rate = result.images / max(result.seconds, 1e-9)
            self.stages[name] = {
                "seconds": result.seconds,
                "images": result.images,
                "images_per_second": rate,
            }
            self._say(name)

    def _say(self, name: str) -> None:
        """Keep the longest time of any call: a stage that was already done takes none."""
        kept = self._kept.get(name)
        if kept is not None and kept["seconds"] > self.stages[name]["seconds"]:
            self.stages[name] = kept
        self._kept[name] = self.stages[name]
        write_json(self._path, self._kept)
        done = self.stages[name]
        typer.echo(f"{name}: {done['images']:.0f} in {done['seconds']:.0f} s ({done['images_per_second']:.0f}/s)")
