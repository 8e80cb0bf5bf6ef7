"""Settings of a suite: which orders are held against each other, on what, how long and how they are judged."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ar_model.sampling import SampleConfig
from seqtok.evaluation.eyes.training import EyeConfig
from seqtok.evaluation.runners.understanding import UnderstandingConfig
from seqtok.evaluation.scenes.prefix_truth import PrefixTruthConfig
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.runs.base import AssumedData, TrainingRun
from seqtok.runs.coevolution.run import GENERATOR, TOKENIZER, CoevolutionRun
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.judge.models import levels_of
from seqtok.runs.judge.orders.contestants import Contestant, contestants
from seqtok.runs.settings import Count, change_values, precision_words, read_values
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.foundation.config import RESUMABLE, Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training.costs.flops import count_flops

_COUNTED = 8  # pictures of the step whose operations are counted
_TOGETHER = "together"  # folder of a training of both


class Stage(Config):
    """A training config, by name or file, and what all contestants change in it."""

    config: str
    settings: tuple[str, ...] = ()


class OwnContestant(Config):
    """One that is not among the known ones: changes to both configs, and how they are trained."""

    says: str
    tokenizer: tuple[str, ...] = ()
    generator: tuple[str, ...] = ()
    taught: bool = False  # by captions
    # One training of both models, of kind coevolution, in place of two: changes to it, e.g. objective.reach=1.
    together: tuple[str, ...] | None = None
    # After one together: a training of the sequence model alone, with these changes, e.g. train.images=20000.
    afterwards: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _after_something(self) -> Self:
        if self.afterwards is not None and self.together is None:
            raise ValueError("afterwards: follows a training of both; say together, or use generator")
        return self


class Chosen(Config):
    """How pictures are drawn, and on which split that was chosen."""

    sample: SampleConfig = SampleConfig()
    split: str = "val"


class LabelledLevel(Config):
    """What captions of one fineness say, and the labels that say the same."""

    name: str
    labels: tuple[str, ...]


class JudgeSettings(Config):
    """Numbers of held-out pictures; all metrics are of the same ones for every contestant."""

    levels: tuple[LabelledLevel, ...] = ()  # coarse to fine; (): as the data name them
    fit: Count = 5000  # training pictures that probes are fitted on
    test: Count = 2000
    pictures: Annotated[int, Field(ge=2)] = 5000  # of a Frechet distance
    pictures_split: str = "val"
    prompts: Count = 1000  # of which pictures are drawn and read
    drawn_scenes: Count = 300  # pictures whose prefixes are drawn from
    chosen: Chosen = Chosen()
    prefix_truth: PrefixTruthConfig = PrefixTruthConfig()
    understanding: UnderstandingConfig = UnderstandingConfig()
    reader: ReaderConfig = ReaderConfig()  # of drawn scenes
    eye: EyeConfig = EyeConfig()  # of other pictures
    networks: tuple[str, ...] = ()  # others' networks as further eyes of sets of pictures, see eyes/networks.py
    eye_pictures: Count = 50_000  # of the training split, at most, that the eye learns from
    seed: int = 0


class SuiteConfig(Config):
    """seqtok evaluate ordering."""

    kind: Literal["ordering"]
    data: Path
    out: Annotated[Path, RESUMABLE]
    contestants: Annotated[tuple[str, ...], RESUMABLE, Field(min_length=1)]
    own: Annotated[Mapping[str, OwnContestant], RESUMABLE] = {}
    seeds: Annotated[tuple[int, ...], RESUMABLE, Field(min_length=1)] = (0, 1, 2)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"  # auto: bf16, but fp32 on a CPU that only emulates it
    jobs: Annotated[Count, RESUMABLE] = 1  # contestants trained side by side
    tokenizer: Stage = Stage(config="demo-tokenizer")
    generator: Stage = Stage(config="demo-generator")
    judge: JudgeSettings = JudgeSettings()
    reader: Annotated[Path | None, RESUMABLE] = None  # folder of the neutral network; None: `out`/eye

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = [*contestants(1, (1,)), *self.own]
        for name in self.contestants:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                raise ValueError(f"contestants: {name!r} is not known; {hint}")
        return self

    @property
    def eye(self) -> Path:
        return self.reader or self.out / "eye"

    def levels(self) -> tuple[Mapping[str, Sequence[str]] | None, Callable[[str], str]]:
        """Of captions and labels, coarse to fine, and which captions mean the same."""
        named, meaning = levels_of(self.data)
        return {level.name: level.labels for level in self.judge.levels} or named, meaning

    def contestant(self, name: str) -> Contestant:
        if name in self.own:
            own = self.own[name]
            return Contestant(own.says, own.tokenizer, own.generator, own.taught, own.together, own.afterwards)
        run = self._tokenizer([f"data.folder={self.data}", *self.tokenizer.settings])
        contrast = run.objective.contrast
        if contrast is None or contrast.level_starts is None:
            raise ConfigError(
                f"tokenizer.config={self.tokenizer.config}: names no objective.contrast.level_starts, by which the "
                "contestants with text differ"
            )
        return contestants(run.model.num_latents, contrast.level_starts)[name]

    def folder(self, name: str, seed: int) -> Path:
        return self.out / f"{name}-{seed}"

    def runs(self, name: str, seed: int) -> dict[str, TrainingRun]:
        """What is trained, in this order: tokenizer and generator, or both together, which a generator may follow."""
        own = self.contestant(name)
        if own.together is None:
            return {"tokenizer": self.tokenizer_run(name, seed), "generator": self.generator_run(name, seed)}
        last = {} if own.afterwards is None else {"generator": self.generator_run(name, seed)}
        return {"together": self.together_run(name, seed), **last}

    def tokenizer_run(self, name: str, seed: int) -> TokenizerRun:
        own = [f"out={self.folder(name, seed) / 'tokenizer'}", f"data.folder={self.data}", *_seeds(seed)]
        words = [*precision_words(self.precision), *self.tokenizer.settings, *self.contestant(name).tokenizer, *own]
        return self._tokenizer(words)

    def generator_run(self, name: str, seed: int) -> GeneratorRun:
        folder, contestant = self.folder(name, seed), self.contestant(name)
        own = [f"out={folder / 'generator'}", f"data.folder={folder / 'latents'}", *_seeds(seed)]
        words = [*precision_words(self.precision), *self.generator.settings, *contestant.generator, *own]
        if contestant.together is None:
            words.append(f"tokenizer={folder / 'tokenizer' / 'model'}")
        else:
            model = folder / _TOGETHER / "model"
            own = [f"tokenizer={model / TOKENIZER}", f"init_from={model / GENERATOR}"]
            words += [*(contestant.afterwards or ()), *own]
        return GeneratorRun.parse(read_values(self.generator.config, words), self.generator.config)

    def together_run(self, name: str, seed: int) -> CoevolutionRun:
        """Both models in one training, each as its own run would have it; rates and lengths are the tokenizer's."""
        tokenizer, generator = self.tokenizer_run(name, seed), self.generator_run(name, seed)
        values = {
            "kind": "coevolution",
            "out": self.folder(name, seed) / _TOGETHER,
            "data": tokenizer.data,
            "model": {"tokenizer": tokenizer.model, "generator": generator.model},
            "objective": {"tokenizer": tokenizer.objective, "generator": generator.objective},
            "train": tokenizer.train,
        }
        said = f"own.{name}.together"
        plain = CoevolutionRun.model_validate(values).model_dump(mode="json")
        return CoevolutionRun.parse(change_values(plain, self.contestant(name).together or (), said), said)

    def _tokenizer(self, words: Sequence[str]) -> TokenizerRun:
        return TokenizerRun.parse(read_values(self.tokenizer.config, words), self.tokenizer.config)


def training_flops(run: TrainingRun, assumed: AssumedData | None = None) -> float:
    """Of forward and backward, of all its pictures. `assumed`: of data that are not there yet."""
    work = run.workload(assumed or AssumedData(), _COUNTED)
    return run.train.images * count_flops(work.objective, work.batch(_COUNTED)) / _COUNTED


def _seeds(seed: int) -> list[str]:
    return [f"train.seed={seed}", f"objective.seed={seed}"]
