"""A sequence model's run: settings, latents, objective, and what it samples and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from ar_model import GeneratorObjective, GeneratorObjectiveConfig, SeqGenerator
from ar_model.text.meaning import Meaning
from ar_model.text.prompts import is_read
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.latent_text import LatentTextLoader, read_latents
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.samples import LatentTextBatch
from seq_tokenizer import LatentSpec, SeqTokenizer
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import decode_all
from seqtok.grids import as_tensor, grid
from seqtok.runs.base import AssumedData, ValidationConfig, Workload
from seqtok.runs.generators.base import LatentFolder, SequenceHooks, SequenceRun, generator_of
from seqtok.runs.stand_in import LEVELS, random_captions, seeded_generator, vocabulary_or_stand_in, workload_of_data
from seqtok_core.foundation.config import RESUMABLE
from seqtok_core.training import Shown, World

if TYPE_CHECKING:
    from seqtok.evaluation.scenes.reader import SceneReader

_PROMPTS, _SCORED = 4, 128


class LatentData(LatentFolder):
    """How latents and captions are read."""

    loader: ReadConfig = ReadConfig()


class GeneratorRun(SequenceRun):
    """seqtok generator train."""

    kind: Literal["generator"]
    data: LatentData
    objective: GeneratorObjectiveConfig = GeneratorObjectiveConfig()
    # Folder of a scene reader: says of how many held-out prompts the samples show everything.
    reader: Annotated[Path | None, RESUMABLE] = None

    @model_validator(mode="after")
    def _read_as_pictures(self) -> Self:
        if self.reader is not None and self.tokenizer is None:
            raise ValueError("reader: reads pictures, which the tokenizer draws; name it with `tokenizer`")
        return self

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
        generator, spec = self.fresh(captions, loader.latent_spec)
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

    def hooks(self) -> GeneratorHooks:
        return GeneratorHooks(self)

    def workload(self, assumed: AssumedData, rows: int) -> Workload:
        notes: list[str] = []
        folder, split, config = self.data.folder, self.data.split, self.data.loader
        words = vocabulary_or_stand_in(self.data.captions_path, assumed, notes)
        spec = self.latent_spec(assumed, notes)
        generator, meaning = SeqGenerator(self.model, spec, words), self._meaning(spec)
        objective = GeneratorObjective(generator, self.objective, spec, meaning=meaning)
        kept = 4 * spec.length * spec.dim
        if isinstance(words, CaptionTokenizer) and self.data.is_there:
            read = lambda count: read_latents(folder, split, words, count, config)  # noqa: E731
            return workload_of_data(objective, read, (folder, split), config, kept, rows, notes)
        levels = config.levels or LEVELS
        notes.append(f"no data read from {folder}: random latents, {levels} caption levels")

        def batch(count: int) -> LatentTextBatch:
            latents = torch.randn(count, spec.length, spec.dim, generator=seeded_generator(1))
            captions = random_captions(count, levels, config.max_tokens, words.vocab_size)
            return LatentTextBatch(latents=latents, **captions)

        return Workload(objective, batch, assumed.samples, kept, kept, None, config, notes)


class GeneratorHooks(SequenceHooks):
    """Samples during training, scored, and shown when the run names its tokenizer; the model folder at its end."""

    def __init__(self, run: GeneratorRun) -> None:
        self._tokenizer = SeqTokenizer.from_pretrained(run.tokenizer) if run.tokenizer else None
        self._reader = _reader(run.reader) if run.reader else None
        captions = CaptionTokenizer.load(run.data.captions_path)
        self._held_out = None if run.validation is None else _held_out(run, run.validation, captions)
        batch = read_latents(run.data.folder, run.data.split, captions, _SCORED, run.data.loader)
        limit = run.model.max_text_tokens
        finest = [
            next((text for text in reversed(own) if is_read(captions, text, limit)), None) for own in batch.captions
        ]
        self._prompts = [text for text in finest if text is not None]
        self._real = batch.latents[[i for i, text in enumerate(finest) if text is not None]].float()

    def on_sample(self, module: nn.Module, folder: Path, sequences: int) -> Shown | None:
        """The same prompts and noise every time, without guidance: how far the law of the latents is from the real one,
        by Fréchet distance of standardised latents. Every row of the pictures one prompt, decoded from 1, 2, 4, ... K
        tokens."""
        from seqtok.evaluation import progress

        generator = generator_of(module)
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


def _held_out(run: GeneratorRun, config: ValidationConfig, captions: CaptionTokenizer) -> LatentTextBatch:
    """Held-out latents of the same tokenizer. Raises DataError or MismatchError."""
    folder = config.folder or run.data.folder
    run.latent_spec_of(run.data.folder).require_same(run.latent_spec_of(folder), str(run.data.folder), str(folder))
    return read_latents(folder, config.split, captions, config.samples, run.data.loader)


def _reader(folder: Path) -> SceneReader:
    from seqtok.evaluation.scenes.reader_folder import load_reader  # the judge, which training does without

    return load_reader(folder)
