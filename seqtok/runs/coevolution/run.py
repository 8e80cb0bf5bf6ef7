"""A run that trains a tokenizer and a sequence model together: settings, data, objective, and what it leaves.

Its model folder holds two, tokenizer/ and generator/, each as its own stage leaves one. Shapes: K latents, D channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ar_model import GeneratorConfig, GeneratorObjective, SeqGenerator
from ar_model.card import parameter_count
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import ImageTextLoader
from data_pipelines.reading.stream import StreamLoader
from seq_tokenizer import LatentSpec, TokenizerConfig, TokenizerObjective
from seqtok.runs.base import AssumedData, RunLoader, TrainingRun, Workload, begin_with
from seqtok.runs.coevolution.objective import CoevolutionConfig, CoevolutionObjective
from seqtok.runs.stand_in import vocabulary_or_stand_in
from seqtok.runs.tokenizer import ImageData, TokenizerHooks, TokenizerRun
from seqtok_core.foundation.config import Config
from seqtok_core.training import Shown

TOKENIZER, GENERATOR = "tokenizer", "generator"  # folders of a model folder
_UNFINISHED = "in training"  # stands for the id of a tokenizer that still changes


class Models(Config):
    """Both, as the stages of their own have them."""

    tokenizer: TokenizerConfig
    generator: GeneratorConfig = GeneratorConfig()


class CoevolutionRun(TrainingRun):
    """seqtok train, of a config of kind coevolution. `init_from`: a folder that holds tokenizer/ and generator/."""

    kind: Literal["coevolution"]
    data: ImageData
    model: Models
    objective: CoevolutionConfig = CoevolutionConfig()

    @property
    def first_stage(self) -> TokenizerRun:
        """The tokenizer's part as a run of its own: its data, its beginning, and what it shows."""
        return TokenizerRun(
            kind="tokenizer",
            out=self.out,
            data=self.data,
            model=self.model.tokenizer,
            objective=self.objective.tokenizer,
            train=self.train,
            validation=self.validation,
            init_from=None if self.init_from is None else str(Path(self.init_from) / TOKENIZER),
        )

    def build(self) -> tuple[CoevolutionObjective, ImageTextLoader | StreamLoader]:
        tokenizer, loader = self.first_stage.build()
        captions = CaptionTokenizer.load(self.data.captions_path)
        objective = self._together(tokenizer, captions)
        if self.init_from is not None:
            own, folder = objective.generator.generator, Path(self.init_from) / GENERATOR
            begin_with(own, SeqGenerator.from_pretrained(folder), str(folder))
        return objective, loader

    def _together(self, tokenizer: TokenizerObjective, captions: Any) -> CoevolutionObjective:
        """`captions`: a CaptionTokenizer, or what stands in for one."""
        config, parts = self.model.tokenizer, tokenizer.tokenizer
        shape = (config.num_latents, config.latent_dim)
        # Statistics run along with the training: those of the spec are not asked before the end.
        spec = LatentSpec(*shape, torch.zeros(shape), torch.ones(shape), _UNFINISHED, parts.bottleneck.groups)
        generator = SeqGenerator(self.model.generator, spec, captions)
        return CoevolutionObjective(
            tokenizer, GeneratorObjective(generator, self.objective.generator, spec), self.objective
        )

    def parameters(self) -> tuple[int, str]:
        count, note = self.first_stage.parameters()
        notes: list[str] = []
        words = vocabulary_or_stand_in(self.data.captions_path, AssumedData(), notes)
        shape = (self.model.tokenizer.num_latents, self.model.tokenizer.latent_dim)
        spec = LatentSpec(*shape, torch.zeros(shape), torch.ones(shape), _UNFINISHED)
        return count + parameter_count(self.model.generator, words.vocab_size, spec), note or "; ".join(notes)

    def hooks(self) -> CoevolutionHooks:
        return CoevolutionHooks(self)

    def content(self, loader: RunLoader) -> dict[str, str]:
        found = self.first_stage.content(loader)
        if self.init_from is not None:
            found["init_generator_id"] = SeqGenerator.from_pretrained(Path(self.init_from) / GENERATOR).model_id
        return found

    def describe_data(self, loader: RunLoader) -> str:
        return self.first_stage.describe_data(loader)

    def import_parts(self) -> None:
        self.first_stage.import_parts()

    def workload(self, assumed: AssumedData, rows: int) -> Workload:
        found = self.first_stage.workload(assumed, rows)
        words = vocabulary_or_stand_in(self.data.captions_path, assumed, [])
        assert isinstance(found.objective, TokenizerObjective)
        found.objective = self._together(found.objective, words)
        return found


class CoevolutionHooks:
    """Sample pictures of the tokenizer during training; both model folders at its end."""

    def __init__(self, run: CoevolutionRun) -> None:
        self._first_stage = TokenizerHooks(run.first_stage)

    def on_sample(self, module: nn.Module, folder: Path, images: int) -> Shown:
        return self._first_stage.on_sample(_both_of(module).tokenizer, folder, images)

    def on_validate(self, module: nn.Module) -> dict[str, float]:
        """Means of the whole objective over held-out pictures, and the tokenizer's PSNR by prefix."""
        both = _both_of(module)
        return self._first_stage.held_out_values(both, both.tokenizer.tokenizer)

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        both = _both_of(module)
        self._first_stage.on_finish(both.tokenizer, folder / TOKENIZER)
        generator = both.generator.generator
        generator.spec = both.tokenizer.tokenizer.spec
        generator.save_pretrained(folder / GENERATOR)


def _both_of(module: nn.Module) -> CoevolutionObjective:
    if not isinstance(module, CoevolutionObjective):
        raise TypeError(f"expected a CoevolutionObjective, got {type(module).__name__}")
    module.eval()
    return module
