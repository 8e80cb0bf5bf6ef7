"""A sequence model's run on documents: texts and pictures in turns in one sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from ar_model import SeqGenerator
from ar_model.documents.continuing import Document, draw_next
from ar_model.documents.objective import DocumentObjective, DocumentObjectiveConfig
from ar_model.text.prompts import is_read
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.documents import DocumentLoader, DocumentReadConfig, read_documents
from data_pipelines.samples import DocumentBatch
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all
from seqtok.grids import as_tensor, grid
from seqtok.runs.base import AssumedData, ValidationConfig, Workload, batch_rows
from seqtok.runs.generators.base import LatentFolder, SequenceHooks, SequenceRun, generator_of
from seqtok.runs.stand_in import random_captions, seeded_generator, vocabulary_or_stand_in
from seqtok_core.foundation.config import LATER, RESUMABLE
from seqtok_core.training import Shown, World

_SHOWN, _SCORED = 4, 128


class DocumentData(LatentFolder):
    """How documents are read."""

    documents: Annotated[Path, RESUMABLE]  # JSON lines; what is in it must stay, by its fingerprint
    loader: DocumentReadConfig = DocumentReadConfig()


class DocumentValidation(ValidationConfig):
    """Held-out documents, of pictures of a split."""

    documents: Path


class DocumentsRun(SequenceRun):
    """seqtok train, of a config of kind documents. Where it counts images, it counts documents."""

    kind: Literal["documents"]
    data: DocumentData
    objective: DocumentObjectiveConfig = DocumentObjectiveConfig()
    validation: Annotated[DocumentValidation | None, LATER, RESUMABLE] = None

    def build(self) -> tuple[DocumentObjective, DocumentLoader]:
        captions, world = CaptionTokenizer.load(self.data.captions_path), World.from_environment()
        loader = self._loader(captions, self.train.batch, self.train.micro_batch_of(world.size), world)
        generator, spec = self.fresh(captions, loader.latent_spec)
        return DocumentObjective(generator, self.objective, spec, str(self.data.folder)), loader

    def _loader(
        self, captions: CaptionTokenizer, batch: int, micro_batch: int | None = None, world: World | None = None
    ) -> DocumentLoader:
        return DocumentLoader(
            self.data.folder,
            self.data.split,
            self.data.documents,
            captions,
            self.data.loader,
            seed=self.train.seed,
            global_batch=batch,
            micro_batch=micro_batch,
            rank=world.rank if world else 0,
            world=world.size if world else 1,
        )

    def hooks(self) -> DocumentHooks:
        return DocumentHooks(self)

    def workload(self, assumed: AssumedData, rows: int) -> Workload:
        notes: list[str] = []
        data, config = self.data, self.data.loader
        words = vocabulary_or_stand_in(data.captions_path, assumed, notes)
        spec = self.latent_spec(assumed, notes)
        objective = DocumentObjective(SeqGenerator(self.model, spec, words), self.objective, spec)
        most = config.pictures + 1
        stored = 4 * spec.length * spec.dim * config.pictures
        if isinstance(words, CaptionTokenizer) and data.is_there:
            pictures = read_manifest(data.folder).split(data.split, data.folder).samples
            documents = self._loader(words, 1).samples
            kept = -(-4 * spec.length * spec.dim * pictures // documents)  # the whole split is kept, once
            whole = read_documents(data.folder, data.split, data.documents, words, rows, config)
            first = lambda count: batch_rows(whole, torch.arange(count) % len(whole))  # noqa: E731
            return Workload(objective, first, documents, kept, stored, None, config, notes)
        notes.append(f"no data read from {data.folder}: random latents, {config.pictures} pictures in each document")

        def batch(count: int) -> DocumentBatch:
            captions = random_captions(count, most, config.max_tokens, words.vocab_size)
            held = {name: captions[name] for name in ("keys", "index", "epoch", "text_ids")}
            latents = torch.randn(count, most, spec.length, spec.dim, generator=seeded_generator(1))
            pictures = torch.full((count,), config.pictures)
            return DocumentBatch(latents=latents, pictures=pictures, rows=pictures + 1, **held)

        return Workload(objective, batch, assumed.samples, stored, stored, None, config, notes)


class DocumentHooks(SequenceHooks):
    """The last pictures of the first documents, drawn during training from what stands before them, scored, and shown
    when the run names its tokenizer; the model folder at its end."""

    def __init__(self, run: DocumentsRun) -> None:
        self._tokenizer = SeqTokenizer.from_pretrained(run.tokenizer) if run.tokenizer else None
        captions = CaptionTokenizer.load(run.data.captions_path)
        data, config, later = run.data, run.data.loader, run.validation
        first = read_documents(data.folder, data.split, data.documents, captions, _SCORED, config)
        parts = [begun(first, row, captions) for row in range(len(first)) if first.pictures[row]]
        self._asked = [each for each in parts if _is_read(each[0], captions, run.model.max_text_tokens)]
        self._real = torch.stack([last for _, last in self._asked]) if self._asked else torch.empty(0)
        self._held_out: DocumentBatch | None = None
        if later is not None:
            folder = later.folder or data.folder
            run.latent_spec_of(data.folder).require_same(run.latent_spec_of(folder), str(data.folder), str(folder))
            asked = later.split, later.documents, captions, later.samples, config
            self._held_out = read_documents(folder, *asked)

    def on_sample(self, module: nn.Module, folder: Path, documents: int) -> Shown | None:
        """Without guidance, the same noise every time. Every row a document: its pictures, the last one as it was
        drawn, and as it is."""
        from seqtok.evaluation import progress

        if len(self._asked) < 2:
            return None
        generator = generator_of(module)
        drawn = draw_next(generator, [before for before, _ in self._asked], guidance=1.0).cpu()
        scores = {"latent_frechet": progress.latent_frechet(generator, drawn, self._real)}
        if self._tokenizer is None:
            return Shown(scores)
        rows, most = [], max(len(_pictures(before)) for before, _ in self._asked[:_SHOWN])
        for (before, last), own in zip(self._asked[:_SHOWN], drawn, strict=False):
            known = _pictures(before)
            shown = decode_all(self._tokenizer, torch.stack([*known, own, last]), generator.spec.length)
            blank = torch.zeros_like(shown[0])
            rows.append([*shown[: len(known)], *[blank] * (most - len(known)), *shown[len(known) :]])
        folder.mkdir(parents=True, exist_ok=True)
        sheet = grid(rows, [*map(str, range(1, most + 1)), "drawn", "as it is"])
        sheet.save(folder / f"images_{documents:09d}.png")
        return Shown(scores, as_tensor(sheet))


def begun(batch: DocumentBatch, row: int, captions: CaptionTokenizer) -> tuple[list[str | Tensor], Tensor]:
    """A document of a batch up to its last picture, and that picture, (K, D)."""
    parts: list[str | Tensor] = []
    count = int(batch.pictures[row])
    for place in range(count):
        text = captions.decode([i for i in batch.text_ids[row, place].tolist() if i])
        parts += [text] if text else []
        parts.append(batch.latents[row, place])
    last = parts.pop()
    assert isinstance(last, Tensor)
    return parts, last


def _is_read(document: Document, captions: CaptionTokenizer, limit: int) -> bool:
    """A text that the loader cut has perhaps more tokens when it is read anew."""
    return all(is_read(captions, part, limit) for part in document if isinstance(part, str))


def _pictures(document: Document) -> list[Tensor]:
    return [part for part in document if isinstance(part, Tensor)]
