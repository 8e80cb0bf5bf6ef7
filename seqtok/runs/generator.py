"""A sequence model's run: settings, latents, objective, and what it samples and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor, nn

from ar_model import GeneratorConfig, GeneratorObjective, GeneratorObjectiveConfig, SeqGenerator
from ar_model.card import parameter_count
from ar_model.heads.categorical import CategoricalHead
from ar_model.text.meaning import Meaning
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.latent_text import LatentTextLoader, read_latents
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.samples import LatentTextBatch
from data_pipelines.shards.manifest import FILE as MANIFEST
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer import LatentSpec, SeqTokenizer
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import decode_all
from seqtok.export.belongs import require_export
from seqtok.grids import as_tensor, grid
from seqtok.runs.base import AssumedData, RunLoader, TrainingRun, ValidationConfig, Workload, begin_with, held_out_means
from seqtok.runs.stand_in import LEVELS, random_captions, seeded_generator, vocabulary_or_stand_in, workload_of_data
from seqtok.runs.tokenizer import import_text_tower
from seqtok_core.foundation.config import RESUMABLE, Config
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.foundation.files import sha256_file
from seqtok_core.training import Shown, World

if TYPE_CHECKING:
    from seqtok.evaluation.scenes.reader import SceneReader

_PROMPTS, _SCORED = 4, 128
_ASSUMED_LATENTS = (64, 16)  # K, D


class LatentData(Config):
    """Where latents and captions come from."""

    folder: Annotated[Path, RESUMABLE]  # what is in it must stay, by its fingerprint
    split: str = "train"
    loader: ReadConfig = ReadConfig()

    @property
    def captions_path(self) -> Path:
        return self.folder / CAPTIONS_FILE


class GeneratorRun(TrainingRun):
    """seqtok generator train."""

    kind: Literal["generator"]
    data: LatentData
    model: GeneratorConfig = GeneratorConfig()
    objective: GeneratorObjectiveConfig = GeneratorObjectiveConfig()
    tokenizer: Annotated[Path | None, RESUMABLE] = None  # model folder: draws sample pictures during training
    # Folder of a scene reader: says of how many held-out prompts the samples show everything.
    reader: Annotated[Path | None, RESUMABLE] = None

    def build(self) -> tuple[GeneratorObjective, LatentTextLoader]:
        captions, world, folder = (
            CaptionTokenizer.load(self.data.captions_path),
            World.from_environment(),
            self.data.folder,
        )
        loader = LatentTextLoader(
            folder,
            self.data.split,
            captions,
            self.data.loader,
            seed=self.train.seed,
            global_batch=self.train.batch,
            micro_batch=self.train.micro_batch_of(world.size),
            rank=world.rank,
            world=world.size,
        )
        spec = LatentSpec.from_json(loader.latent_spec, f"{folder}/{MANIFEST}")
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
        return GeneratorObjective(generator, self.objective, spec, str(folder), self._meaning(spec)), loader

    def _meaning(self, spec: LatentSpec) -> Meaning | None:
        """How pictures are embedded, where that is asked for and can be had."""
        if not self.objective.rebuild_share or self.tokenizer is None:
            return None
        tokenizer = SeqTokenizer.from_pretrained(self.tokenizer).requires_grad_(False)
        if tokenizer.config.text is None:
            return None

        def embed(latents: Tensor) -> Tensor:
            if tokenizer.device != latents.device:
                tokenizer.to(latents.device)
            return tokenizer.prefix_embeddings(latents.to(tokenizer.dtype))[:, -1]

        dim = embed(torch.zeros(1, spec.length, spec.dim)).shape[-1]
        return Meaning(embed, dim, self.model.width)

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
        there = (self.data.folder / MANIFEST).is_file()
        spec = self._latent_spec(AssumedData(latents=None if there else _ASSUMED_LATENTS), notes)
        return parameter_count(self.model, words.vocab_size, spec), "; ".join(notes)

    def hooks(self) -> GeneratorHooks:
        return GeneratorHooks(self)

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

    def workload(self, assumed: AssumedData, rows: int) -> Workload:
        notes: list[str] = []
        folder, split, config = self.data.folder, self.data.split, self.data.loader
        words = vocabulary_or_stand_in(self.data.captions_path, assumed, notes)
        spec = self._latent_spec(assumed, notes)
        generator, meaning = SeqGenerator(self.model, spec, words), self._meaning(spec)
        objective = GeneratorObjective(generator, self.objective, spec, meaning=meaning)
        kept = 4 * spec.length * spec.dim
        if isinstance(words, CaptionTokenizer) and (folder / MANIFEST).is_file():
            read = lambda count: read_latents(folder, split, words, count, config)  # noqa: E731
            return workload_of_data(objective, read, (folder, split), config, kept, rows, notes)
        levels = config.levels or LEVELS
        notes.append(f"no data read from {folder}: random latents, {levels} caption levels")

        def batch(count: int) -> LatentTextBatch:
            latents = torch.randn(count, spec.length, spec.dim, generator=seeded_generator(1))
            captions = random_captions(count, levels, config.max_tokens, words.vocab_size)
            return LatentTextBatch(latents=latents, **captions)

        return Workload(objective, batch, assumed.samples, kept, kept, None, config, notes)

    def _latent_spec(self, assumed: AssumedData, notes: list[str]) -> LatentSpec:
        folder = self.data.folder
        if assumed.latents is None and (folder / MANIFEST).is_file():
            return LatentSpec.from_json(read_manifest(folder).latent_spec or {}, f"{folder}/{MANIFEST}")
        if assumed.latents is None:
            raise ConfigError(f"{folder}: no latents there to take K and D from; say --latents 64x16")
        length, dim = assumed.latents
        notes.append(f"{length} latents of {dim} channels assumed")
        return LatentSpec(length, dim, torch.zeros(length, dim), torch.ones(length, dim), "assumed")


class GeneratorHooks:
    """Samples during training, scored, and shown when the run names its tokenizer; the model folder at its end."""

    def __init__(self, run: GeneratorRun) -> None:
        self._tokenizer = SeqTokenizer.from_pretrained(run.tokenizer) if run.tokenizer else None
        self._reader = _reader(run.reader) if run.reader else None
        captions = CaptionTokenizer.load(run.data.captions_path)
        self._held_out = None if run.validation is None else _held_out(run, run.validation, captions)
        batch = read_latents(run.data.folder, run.data.split, captions, _SCORED, run.data.loader)
        told = [i for i, pyramid in enumerate(batch.captions) if pyramid]
        self._prompts = [batch.captions[i][-1] for i in told]
        self._real = batch.latents[told].float()

    def on_sample(self, module: nn.Module, folder: Path, sequences: int) -> Shown | None:
        """The same prompts and noise every time, without guidance: how far the law of the latents is from the real one,
        by Fréchet distance of standardised latents. Every row of the pictures one prompt, decoded from 1, 2, 4, ... K
        tokens."""
        from seqtok.evaluation import progress

        generator = _generator_of(module)
        if len(self._prompts) < 2:
            return None
        latents = generator.sample(self._prompts, guidance=1.0).cpu()
        scores = {"latent_frechet": progress.latent_frechet(generator, latents, self._real)}
        scores |= progress.losses(generator, self._prompts, self._real)
        if self._tokenizer is None:
            return Shown(scores)
        prefixes, few = prefix_lengths(latents.shape[1]), latents[:_PROMPTS]
        decoded = torch.stack([decode_all(self._tokenizer, few, k) for k in prefixes], 1)
        folder.mkdir(parents=True, exist_ok=True)
        sheet = grid([list(row) for row in decoded], [str(k) for k in prefixes])
        sheet.save(folder / f"images_{sequences:09d}.png")
        if self._reader is not None:
            right = progress.everything_right(generator, self._tokenizer, self._reader, _SCORED)
            scores["everything_right"] = right
        return Shown(scores, as_tensor(sheet))

    def on_validate(self, module: nn.Module) -> dict[str, float]:
        """Means of the objective over held-out latents, each with the draws of its own."""
        assert self._held_out is not None
        return held_out_means(module, self._held_out, _generator_of(module).device)

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        _generator_of(module).save_pretrained(folder)


def _held_out(run: GeneratorRun, config: ValidationConfig, captions: CaptionTokenizer) -> LatentTextBatch:
    """Held-out latents of the same tokenizer. Raises DataError or MismatchError."""
    folder = config.folder or run.data.folder
    own, its = (LatentSpec.from_json(read_manifest(f).latent_spec or {}, str(f)) for f in (run.data.folder, folder))
    own.require_same(its, str(run.data.folder), str(folder))
    return read_latents(folder, config.split, captions, config.samples, run.data.loader)


def _reader(folder: Path) -> SceneReader:
    from seqtok.evaluation.scenes.reader_folder import load_reader  # the judge, which training does without

    return load_reader(folder)


def _generator_of(module: nn.Module) -> SeqGenerator:
    if not isinstance(module, GeneratorObjective):
        raise TypeError(f"expected a GeneratorObjective, got {type(module).__name__}")
    return module.generator.eval()
