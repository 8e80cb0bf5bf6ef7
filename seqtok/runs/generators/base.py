"""What every run of a sequence model on latents has: where they lie, the model, and the tokenizer that draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from ar_model import GeneratorConfig, SeqGenerator
from ar_model.card import parameter_count
from ar_model.heads.categorical import CategoricalHead
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.shards.manifest import FILE as MANIFEST
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer import LatentSpec, SeqTokenizer
from seqtok.export.belongs import require_export
from seqtok.runs.base import AssumedData, RunLoader, TrainingRun, begin_with, held_out_means
from seqtok.runs.stand_in import vocabulary_or_stand_in
from seqtok.runs.tokenizer import import_text_tower
from seqtok_core.foundation.config import RESUMABLE, Config
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.foundation.files import sha256_file

_ASSUMED_LATENTS = (64, 16)  # K, D


class LatentFolder(Config):
    """Where latents and captions come from."""

    folder: Annotated[Path, RESUMABLE]  # what is in it must stay, by its fingerprint
    split: str = "train"

    @property
    def captions_path(self) -> Path:
        return self.folder / CAPTIONS_FILE

    @property
    def is_there(self) -> bool:
        return (self.folder / MANIFEST).is_file()


class SequenceRun(TrainingRun):
    """A run that trains a SeqGenerator on a folder of latents."""

    data: LatentFolder
    model: GeneratorConfig = GeneratorConfig()
    tokenizer: Annotated[Path | None, RESUMABLE] = None  # model folder: draws sample pictures during training

    def fresh(self, captions: CaptionTokenizer, latent_spec: Mapping[str, Any]) -> tuple[SeqGenerator, LatentSpec]:
        """The model that is trained, with new weights or those of `init_from`, and whose latents it learns."""
        folder = self.data.folder
        spec = LatentSpec.from_json(latent_spec, f"{folder}/{MANIFEST}")
        require_export(folder, self.data.split, captions)
        tokenizer = None if self.tokenizer is None else SeqTokenizer.from_pretrained(self.tokenizer)
        if tokenizer is not None:
            tokenizer.spec.require_same(spec, str(self.tokenizer), str(folder))
        torch.manual_seed(self.train.seed)
        generator = SeqGenerator(self.model, spec, captions)
        if self.init_from is not None:
            begin_with(generator, self._beginning(self.init_from, spec, captions), self.init_from)
        if isinstance(generator.head, CategoricalHead):
            if tokenizer is None:
                raise ConfigError(
                    "model.head.kind=categorical: name the tokenizer, whose codebook it learns to choose from"
                )
            generator.head.take_codebook(tokenizer.codebook())
        return generator, spec

    def _beginning(self, name: str, spec: LatentSpec, captions: CaptionTokenizer) -> SeqGenerator:
        """What the run begins with. Raises MismatchError where it knows other latents or other words."""
        other = SeqGenerator.from_pretrained(name)
        other.spec.require_same(spec, f"init_from={name}", str(self.data.folder))
        if other.captions.sha256 != captions.sha256:
            raise MismatchError(
                f"init_from={name}: was trained with another captions model than {self.data.captions_path}: its ids "
                "are other words; export the latents with the tokenizer that it belongs to"
            )
        return other

    def parameters(self) -> tuple[int, str]:
        notes: list[str] = []
        words = vocabulary_or_stand_in(self.data.captions_path, AssumedData(), notes)
        spec = self.latent_spec(AssumedData(latents=None if self.data.is_there else _ASSUMED_LATENTS), notes)
        return parameter_count(self.model, words.vocab_size, spec), "; ".join(notes)

    def content(self, loader: RunLoader) -> dict[str, str]:
        found = {**super().content(loader), "captions_sha256": sha256_file(self.data.captions_path)}
        if self.init_from is not None:
            found["init_id"] = SeqGenerator.from_pretrained(self.init_from).model_id
        return found

    def describe_data(self, loader: RunLoader) -> str:
        return f"{super().describe_data(loader)} of {self.data.folder}"

    def import_parts(self) -> None:
        if self.tokenizer is not None:
            import_text_tower()

    def latent_spec(self, assumed: AssumedData, notes: list[str]) -> LatentSpec:
        """Of the folder, or as assumed, which is noted. Raises ConfigError."""
        folder = self.data.folder
        if assumed.latents is None and self.data.is_there:
            return self.latent_spec_of(folder)
        if assumed.latents is None:
            raise ConfigError(f"{folder}: no latents there to take K and D from; say --latents 64x16")
        length, dim = assumed.latents
        notes.append(f"{length} latents of {dim} channels assumed")
        zeros, ones = torch.zeros(length, dim), torch.ones(length, dim)
        return LatentSpec(length, dim, zeros, ones, "assumed", groups=assumed.groups)

    @staticmethod
    def latent_spec_of(folder: Path) -> LatentSpec:
        """Of a folder of latents. Raises DataError."""
        return LatentSpec.from_json(read_manifest(folder).latent_spec or {}, f"{folder}/{MANIFEST}")


class SequenceHooks:
    """What such a run does on its way and at its end; what it draws is each kind's own."""

    _held_out: Any = None  # a batch

    def on_validate(self, module: nn.Module) -> dict[str, float]:
        """Means of the objective over held-out data, each with the draws of its own."""
        assert self._held_out is not None
        return held_out_means(module, self._held_out, generator_of(module).device)

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        generator_of(module).save_pretrained(folder)


def generator_of(module: nn.Module) -> SeqGenerator:
    """The model of an objective, in eval mode."""
    generator = getattr(module, "generator", None)
    if not isinstance(generator, SeqGenerator):
        raise TypeError(f"expected the objective of a sequence model, got {type(module).__name__}")
    return generator.eval()
