"""A shard of pictures or captions through the tokenizer: always in the same slices, so always the same bits.

Matrix products may round otherwise in a batch of another size, so a slice never crosses the end of a shard and never
depends on who encodes it; `slices` does the same for threads.
Shapes: N pictures, K latents, D channels, Q codes per latent, P prefixes, E text-image space.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.captions.clean import normalise_caption
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.samples import to_model
from data_pipelines.shards.codes import CodeLayout
from data_pipelines.shards.shard_set import Record, ShardSet
from seq_tokenizer import SeqTokenizer
from seqtok.export.config import Table
from seqtok.export.slices import in_order, slices
from seqtok.export.source import ExportSource, decode_pictures
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import DataError

_UNIT = 1e-3  # how far the norm of an embedding may lie from 1


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One shard. `values` are (N, K, D) latents, (N, P, E) image embeddings or (M, E) text embeddings, one row of
    which is one caption: `rows` says of which sample and level. Latents of a codebook
    come with their `codes`."""

    split: str
    number: int
    records: Sequence[Record]
    values: NDArray[np.float32]
    rows: Sequence[tuple[int, int]] = ()  # (sample, level) of text embeddings
    captions_cut: int = 0
    codes: NDArray[np.int32] | None = None  # (N, K), or (N, K, Q) with Q > 1


class ShardEncoder:
    """A tokenizer with its captions model on a device; `threads` slices are encoded side by side."""

    def __init__(self, model: Path, device: str = "cpu", threads: int = 1) -> None:
        self.tokenizer = SeqTokenizer.from_pretrained(model).to(device)
        self.captions = CaptionTokenizer.load(model_folder.captions_of(model))
        self.device, self.threads = device, threads
        made = self.tokenizer.bottleneck
        self.codes: CodeLayout | None = None
        if made.codebook_size is not None:
            self.codes = CodeLayout(self.tokenizer.config.num_latents, made.codebook_size, made.codes_per_token)

    def encode(
        self,
        table: Table,
        source: ExportSource,
        shards: ShardSet,
        split: str,
        number: int,
        prefixes: Sequence[int],
        batch: int,
    ) -> Encoded:
        """Shard `number` of a split. Raises DataError naming a sample that cannot be read or is not finite."""
        first, size = sum(shards.sizes[:number]), shards.sizes[number]
        records = [source.record(shards, split, index) for index in range(first, first + size)]
        place: dict[str, Any] = {"split": split, "number": number, "records": records}
        if table == "texts":
            rows, values, cut = self._texts(records, batch)
            keys = [records[sample].key for sample, _ in rows]
            return Encoded(**place, values=_unit(values, keys), rows=rows, captions_cut=cut)
        exact, reading = shards.manifest is not None, threading.Lock()

        def encoded(part: range) -> tuple[Tensor, Tensor | None]:
            with reading:
                files = [shards.read_image(first + row) for row in part]
                places = [shards.place(first + row) for row in part]
            images = decode_pictures(files, places, self.tokenizer.config.image_size, exact)
            latents, codes = self._latents(images)
            return (latents, codes) if table == "latents" else (self._prefixes(latents, prefixes), None)

        done = list(in_order(encoded, slices(0, size, batch), self.threads))
        values = torch.cat([self._nothing(table, prefixes), *(part for part, _ in done)])
        if table == "latents":
            return Encoded(**place, values=values.numpy(), codes=self._joined([codes for _, codes in done]))
        return Encoded(**place, values=_unit(values, [record.key for record in records]))

    def _nothing(self, table: Table, prefixes: Sequence[int]) -> Tensor:
        config = self.tokenizer.config
        width = config.text.embed_dim if config.text else 0
        shape = (config.num_latents, config.latent_dim) if table == "latents" else (len(prefixes), width)
        return torch.empty(0, *shape)

    @torch.no_grad()
    def _latents(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n, 3, H, W) uint8 -> (n, K, D) and, with a codebook, (n, K[, Q]) of the same pass."""
        bottled = self.tokenizer.bottle(to_model(images.to(self.device)), None)
        return bottled.z.float().cpu(), None if bottled.codes is None else bottled.codes.cpu()

    def _joined(self, parts: Sequence[Tensor | None]) -> NDArray[np.int32] | None:
        if self.codes is None:
            return None
        nothing = torch.empty(0, *self.codes.shape, dtype=torch.int64)
        return torch.cat([nothing, *(part for part in parts if part is not None)]).numpy().astype(np.int32)

    @torch.no_grad()
    def _prefixes(self, latents: Tensor, prefixes: Sequence[int]) -> Tensor:
        """(n, K, D) -> (n, P, E)."""
        found = self.tokenizer.prefix_embeddings(latents.to(self.device))
        return found[:, [k - 1 for k in prefixes]].float().cpu()

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
        before, longest = self.captions.cut_captions, config.context - 1
        ids, _, _ = self.captions.encode_batch([[records[s].captions[k]] for s, k in rows], 1, longest)

        @torch.no_grad()
        def encoded(part: range) -> Tensor:
            return self.tokenizer.encode_text(ids[part.start : part.stop, 0].to(self.device)).float().cpu()

        found = in_order(encoded, slices(0, len(rows), batch), self.threads)
        return rows, torch.cat([torch.empty(0, config.embed_dim), *found]), self.captions.cut_captions - before


def _unit(values: Tensor, keys: Sequence[str]) -> NDArray[Any]:
    """(N, ..., E) as float32. Raises DataError naming a key whose embedding is not finite or not of unit norm."""
    good = (values.norm(dim=-1) - 1).abs().flatten(1).amax(1) <= _UNIT if values.ndim > 2 else None
    if good is None:
        good = (values.norm(dim=-1) - 1).abs() <= _UNIT  # NaN compares as False
    if not bool(good.all()):
        raise DataError(f"{keys[int(good.int().argmin())]}: its embedding is not finite or not of unit norm")
    return np.ascontiguousarray(values.numpy())
