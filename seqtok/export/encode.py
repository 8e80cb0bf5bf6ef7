"""A shard of pictures or captions through the tokenizer: always in the same slices, so always the same bits.

Matrix products may round otherwise in a batch of another size, so a slice never crosses the end of a shard and never
depends on who encodes it. Shapes: N pictures, K latents, D channels, P prefixes, E text-image space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.caption_text import normalise_caption
from data_pipelines.captions import CaptionTokenizer
from data_pipelines.shards import Record, ShardSet
from seq_tokenizer import SeqTokenizer
from seqtok.evaluation.reconstruction import encode_all
from seqtok.export.config import Table
from seqtok.export.source import read_pictures
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import DataError

_UNIT = 1e-3  # how far the norm of an embedding may lie from 1


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One shard. `values` are (N, K, D) latents, (N, P, E) image embeddings or (M, E) text embeddings, one row of
    which is one caption: `rows` says of which sample and level."""

    split: str
    number: int
    records: Sequence[Record]
    values: NDArray[np.float32]
    rows: Sequence[tuple[int, int]] = ()  # (sample, level) of text embeddings
    captions_cut: int = 0


class Encoder:
    """A tokenizer with its captions model on a device."""

    def __init__(self, model: Path, device: str = "cpu") -> None:
        self.tokenizer = SeqTokenizer.from_pretrained(model).to(device)
        self.captions = CaptionTokenizer.load(model / model_folder.CAPTIONS)
        self.device = device

    def encode(
        self,
        table: Table,
        shards: ShardSet,
        split: str,
        number: int,
        prefixes: Sequence[int],
        batch: int,
    ) -> Encoded:
        """Shard `number` of a split. Raises DataError naming a sample that cannot be read or is not finite."""
        first, size = sum(shards.sizes[:number]), shards.sizes[number]
        records = [shards.record(index) for index in range(first, first + size)]
        place: dict[str, Any] = {"split": split, "number": number, "records": records}
        if table == "texts":
            rows, values, cut = self._texts(records, batch)
            keys = [records[sample].key for sample, _ in rows]
            return Encoded(**place, values=_unit(values, keys), rows=rows, captions_cut=cut)
        parts = [torch.empty(0, self.tokenizer.config.num_latents, self.tokenizer.config.latent_dim)]
        for part in _slices(first, first + size, batch):
            images = read_pictures(shards, part, self.tokenizer.config.image_size)
            parts.append(encode_all(self.tokenizer, images, batch, self.device))
        latents = torch.cat(parts)
        if table == "latents":
            return Encoded(**place, values=latents.numpy())
        values = self._prefixes(latents, prefixes, batch)
        return Encoded(**place, values=_unit(values, [record.key for record in records]))

    @torch.no_grad()
    def _prefixes(self, latents: Tensor, prefixes: Sequence[int], batch: int) -> Tensor:
        """(N, K, D) -> (N, P, E)."""
        chosen = [k - 1 for k in prefixes]
        width = self.tokenizer.config.text.embed_dim if self.tokenizer.config.text else 0
        parts = [torch.empty(0, len(chosen), width)]
        for part in latents.split(batch):
            parts.append(self.tokenizer.prefix_embeddings(part.to(self.device))[:, chosen].float().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def _texts(self, records: Sequence[Record], batch: int) -> tuple[list[tuple[int, int]], Tensor, int]:
        """-> (sample, level) of each caption, (M, E), captions that were cut at the text tower's length."""
        rows = [
            (sample, level)
            for sample, record in enumerate(records)
            for level, text in enumerate(record.captions)
            if normalise_caption(text)
        ]
        config = self.tokenizer.config.text
        assert config is not None, "checked before the export began"
        parts, before = [torch.empty(0, config.embed_dim)], self.captions.cut_captions
        for part in _slices(0, len(rows), batch):
            texts = [[records[rows[row][0]].captions[rows[row][1]]] for row in part]
            ids, _, _ = self.captions.encode_batch(texts, 1, config.context - 1)
            parts.append(self.tokenizer.encode_text(ids[:, 0].to(self.device)).float().cpu())
        return rows, torch.cat(parts), self.captions.cut_captions - before


def _slices(start: int, stop: int, batch: int) -> Iterator[range]:
    for first in range(start, stop, batch):
        yield range(first, min(first + batch, stop))


def _unit(values: Tensor, keys: Sequence[str]) -> NDArray[Any]:
    """(N, ..., E) as float32. Raises DataError naming a key whose embedding is not finite or not of unit norm."""
    good = (values.norm(dim=-1) - 1).abs().flatten(1).amax(1) <= _UNIT if values.ndim > 2 else None
    if good is None:
        good = (values.norm(dim=-1) - 1).abs() <= _UNIT  # NaN compares as False
    if not bool(good.all()):
        raise DataError(f"{keys[int(good.int().argmin())]}: its embedding is not finite or not of unit norm")
    return np.ascontiguousarray(values.numpy())
