"""Going on with documents: the next picture, or the next text, behind the texts and pictures so far.

Shapes: B documents of M rows, T text tokens, K latents of D channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ar_model.documents.layout import DocumentRows, document_slots
from ar_model.documents.objective import require_documents
from ar_model.generator import SeqGenerator
from ar_model.sampling import SampleConfig, of_rows, require_batch
from ar_model.sequences.drawing import Front, ReadSoFar, draw_behind
from ar_model.text.prompts import text_ids
from ar_model.text.writing import CaptionConfig, WordModel, write
from data_pipelines.captions.tokenizer import BOI, EOS, PAD
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws

Document = Sequence[str | Tensor]  # texts, and latents (K, D) of pictures as `encode` gives them, in their order


def draw_next(
    generator: SeqGenerator,
    documents: Sequence[Document],
    config: SampleConfig | None = None,
    *,
    seed: int = 0,
    batch: int = 64,
    **changes: Any,
) -> Tensor:
    """The picture that comes next in each document, as the tokenizer's `decode` takes it: (B, K, D) float32.

    Texts at the end of a document are its prompt, and what stands before is seen, too; a document of a text alone is
    what `SeqGenerator.sample` draws, if its words are those of captions: texts are read as they are. Guidance insists
    on all of it. `changes` are keys of SampleConfig over those of `config`. A picture depends on its document, how
    often the same one stood before it, and `seed`; not on `batch`, how many are computed at once. Raises ConfigError
    for what is no document, or a model that reads none.
    """
    config, length = (config or SampleConfig()).changed(**changes), generator.spec.length
    if config.weak:
        raise ConfigError(f"weak={config.weak}: documents are guided by what is drawn without them; leave it out")
    drawn = [torch.empty(0, length, generator.spec.dim, device=generator.device)]
    with torch.inference_mode():
        for rows, draws in _batches(generator, documents, seed, batch):
            read = _with_nothing_told(rows) if config.guided else rows
            reading = ReadSoFar(generator.backbone, _front(generator, read, drop=length), length - 1)
            asked = generator.backbone, generator.head, draws, config, length, range(length)
            drawn.append(torch.stack(list(draw_behind(reading, *asked)), 1))
    return generator.spec.denormalise(torch.cat(drawn))


@torch.inference_mode()
def write_next(
    generator: SeqGenerator,
    documents: Sequence[Document],
    config: CaptionConfig | None = None,
    *,
    seed: int = 0,
    batch: int = 64,
    **changes: Any,
) -> list[str]:
    """The text that comes next in each document, up to where a picture follows or the document ends; of a document that
    ends in a text, how that goes on. The other arguments are those of `draw_next`, with keys of CaptionConfig."""
    config, most = (config or CaptionConfig()).changed(**changes), generator.config.max_text_tokens
    if config.guidance != 1.0 or config.candidates > 1:
        raise ConfigError("guidance and candidates are for captions of one picture; leave them out for documents")
    if not generator.writes:
        raise ConfigError("this model has not learnt to write; train it on documents, with text_weight above 0")
    written: list[str] = []
    for rows, draws in _batches(generator, documents, seed, batch):
        reading = ReadSoFar(generator.backbone, _front(generator, rows, drop=generator.spec.length + 1), most)
        found = write(_word_model(generator, reading), config, draws, min(config.max_tokens or most, most))
        written += [generator.captions.decode(each.ids) for each in found]
    return written


def _word_model(generator: SeqGenerator, reading: ReadSoFar) -> WordModel:
    """A picture that follows ends a text as the end of the document does."""
    backbone = generator.backbone

    def logits() -> Tensor:
        found = backbone.text_logits(reading.h).float()
        found[:, EOS] = torch.logaddexp(found[:, EOS], found[:, BOI])
        found[:, BOI] = -torch.inf
        return found

    def go_on(parents: Tensor, words: Tensor) -> Tensor:
        reading.select(parents)
        reading.go_on(backbone.embed_text(words[:, None]))
        return logits()

    return WordModel(logits(), go_on)


def _front(generator: SeqGenerator, rows: DocumentRows, drop: int) -> Front:
    """What is read of documents whose last row is still open, the last `drop` slots left out."""
    slots = document_slots(generator.backbone, rows)
    kept = slice(0, slots.x.shape[1] - drop)
    return Front(slots.x[:, kept], slots.positions[:, kept], slots.mask[:, :, kept, kept], slots.valid[:, kept])


def _with_nothing_told(rows: DocumentRows) -> DocumentRows:
    """Below the B documents as many empty ones, which have the open row alone."""
    last, none = torch.zeros_like(rows.there), torch.zeros_like(rows.alone)
    last[:, -1] = True
    return DocumentRows(
        torch.cat([rows.text_ids, rows.text_ids]),
        torch.cat([rows.latents, rows.latents]),
        there=torch.cat([rows.there, last]),
        picture=torch.cat([rows.picture, last]),
        alone=torch.cat([none, ~none]),
    )


def _batches(
    generator: SeqGenerator, documents: Sequence[Document], seed: int, batch: int
) -> Iterator[tuple[DocumentRows, Draws]]:
    """Documents packed to the right, so that the open row, told as one with a picture, is the last one of each."""
    require_documents(generator)
    require_batch(batch)
    cut = [_cut(generator, document, number) for number, document in enumerate(documents)]
    texts = _texts(generator, [text for rows in cut for text, _ in rows])
    ends = torch.tensor([len(rows) for rows in cut]).cumsum(0).tolist()
    starts = [0, *ends[:-1]] if ends else []
    asked = [_identity(rows, texts[start : start + len(rows)]) for start, rows in zip(starts, cut, strict=True)]
    own = of_rows(asked, seed, generator.device)
    for start in range(0, len(cut), batch):
        some = cut[start : start + batch]
        rows = _packed(generator, some, texts[starts[start] : ends[start + len(some) - 1]])
        yield rows, Draws(seed, own.epoch[start : start + batch], own.index[start : start + batch])


def _texts(generator: SeqGenerator, texts: Sequence[str]) -> Tensor:
    """-> (n, T). As the loader reads them, and not in the words of captions alone: documents have others."""
    rows = text_ids(generator.captions, texts, generator.config.max_text_tokens)
    return torch.tensor(rows, dtype=torch.int64, device=generator.device).reshape(len(rows), -1 if rows else 1)


def _cut(generator: SeqGenerator, document: Document, number: int) -> list[tuple[str, Tensor | None]]:
    """A text and the picture after it a row; None in the last row, which is open."""
    if isinstance(document, str):
        raise ConfigError(f"document {number}: is a text; a document is a list of texts and pictures")
    rows: list[tuple[str, Tensor | None]] = []
    words: list[str] = []
    for part in document:
        if isinstance(part, str):
            words.append(part)
        elif isinstance(part, Tensor):
            generator.spec.require_latents(part[None], generator.spec.length, f"what document {number} may hold")
            rows.append((" ".join(words), part))
            words = []
        else:
            raise ConfigError(f"document {number}: {part!r:.80} is neither a text nor the latents of a picture")
    return [*rows, (" ".join(words), None)]


def _identity(rows: Sequence[tuple[str, Tensor | None]], texts: Tensor) -> bytes:
    """What a document's random numbers are named by: of a text alone what they are for that prompt."""
    words = (repr([i for i in ids if i != PAD]).encode() for ids in texts.tolist())
    pictures = (b"" if z is None else z.float().cpu().numpy().tobytes() for _, z in rows)
    return b"".join(word + picture for word, picture in zip(words, pictures, strict=True))


def _packed(generator: SeqGenerator, cut: Sequence[Sequence[tuple[str, Tensor | None]]], texts: Tensor) -> DocumentRows:
    """texts (n, T), of all rows of `cut`, one after the other."""
    spec, device = generator.spec, generator.device
    count = max(map(len, cut))
    longest = int((texts != PAD).sum(1).max().clamp(min=1))
    text_ids = torch.full((len(cut), count, longest), PAD, device=device)
    latents = torch.zeros(len(cut), count, spec.length, spec.dim, device=device)
    there = torch.zeros(len(cut), count, dtype=torch.bool, device=device)
    line = 0
    for number, rows in enumerate(cut):
        first = count - len(rows)
        there[number, first:] = True
        text_ids[number, first:] = texts[line : line + len(rows), :longest]
        for place, (_, z) in enumerate(rows):
            if z is not None:
                latents[number, first + place] = spec.normalise(z.to(device).float()[None])[0]
        line += len(rows)
    return DocumentRows(text_ids, latents, there, there.clone(), torch.zeros_like(there[:, 0]))
