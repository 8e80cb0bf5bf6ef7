"""A sequence model's run: settings, latents, objective, and what it samples and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ar_model import GeneratorConfig, GeneratorObjective, GeneratorObjectiveConfig, SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.latent_text import LatentTextLoader, read_latents
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from seq_tokenizer import LatentSpec, SeqTokenizer
from seq_tokenizer.prefixes import decode_all, prefix_lengths
from seqtok.export import require_export
from seqtok.grids import grid
from seqtok_core.foundation.config import Config
from seqtok_core.training import TrainConfig, World

_PROMPTS = 4


class LatentData(Config):
    """Where latents and captions come from."""

    folder: Path
    split: str = "train"
    loader: ReadConfig = ReadConfig()

    @property
    def captions_path(self) -> Path:
        return self.folder / CAPTIONS_FILE


class GeneratorRun(Config):
    """seqtok generator train."""

    kind: Literal["generator"]
    out: Path
    data: LatentData
    model: GeneratorConfig = GeneratorConfig()
    objective: GeneratorObjectiveConfig = GeneratorObjectiveConfig()
    tokenizer: Path | None = None  # model folder: draws sample pictures during training
    train: TrainConfig


def build_generator(run: GeneratorRun) -> tuple[GeneratorObjective, LatentTextLoader]:
    """The objective with fresh weights and this process's loader. Raises ConfigError, DataError or MismatchError."""
    captions, world = CaptionTokenizer.load(run.data.captions_path), World.from_environment()
    loader = LatentTextLoader(
        run.data.folder,
        run.data.split,
        captions,
        run.data.loader,
        seed=run.train.seed,
        global_batch=run.train.batch,
        micro_batch=run.train.micro_batch_of(world.size),
        rank=world.rank,
        world=world.size,
    )
    spec = LatentSpec.from_json(loader.latent_spec, f"{run.data.folder}/dataset.json")
    require_export(run.data.folder, run.data.split, captions)
    if run.tokenizer is not None:
        SeqTokenizer.from_pretrained(run.tokenizer).spec.require_same(spec, str(run.tokenizer), str(run.data.folder))
    torch.manual_seed(run.train.seed)
    generator = SeqGenerator(run.model, spec, captions)
    return GeneratorObjective(generator, run.objective, spec, str(run.data.folder)), loader


class GeneratorHooks:
    """Sample pictures during training (when the run names its tokenizer), the model folder at its end."""

    def __init__(self, run: GeneratorRun) -> None:
        self._tokenizer = SeqTokenizer.from_pretrained(run.tokenizer) if run.tokenizer else None
        captions = CaptionTokenizer.load(run.data.captions_path)
        shown = read_latents(run.data.folder, run.data.split, captions, _PROMPTS, run.data.loader).captions
        self._prompts = [pyramid[-1] for pyramid in shown if pyramid]

    def on_sample(self, module: nn.Module, folder: Path, sequences: int) -> None:
        """Every row one prompt, decoded from 1, 2, 4, ... K tokens."""
        if self._tokenizer is None:
            return
        latents = _generator_of(module).sample(self._prompts).cpu()
        prefixes = prefix_lengths(latents.shape[1])
        decoded = torch.stack([decode_all(self._tokenizer, latents, k) for k in prefixes], 1)
        folder.mkdir(parents=True, exist_ok=True)
        grid([list(row) for row in decoded], [str(k) for k in prefixes]).save(folder / f"images_{sequences:09d}.png")

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        _generator_of(module).save_pretrained(folder)


def _generator_of(module: nn.Module) -> SeqGenerator:
    if not isinstance(module, GeneratorObjective):
        raise TypeError(f"expected a GeneratorObjective, got {type(module).__name__}")
    return module.generator.eval()
