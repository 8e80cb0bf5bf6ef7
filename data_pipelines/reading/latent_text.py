"""Latent shards -> batches of latents with caption pyramids, in the same order as pictures would come.

Shapes: B samples, K latents of D channels, Q codes per latent, L caption levels, T text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.loader import ReadConfig, SplitLoader
from data_pipelines.reading.order import StepPlan
from data_pipelines.reading.texts import TextStore
from data_pipelines.samples import LatentTextBatch
from data_pipelines.shards.codes import CodeLayout
from data_pipelines.shards.latents import CODES, LATENT, POSITIONS, load_array
from data_pipelines.shards.shard_set import open_shards
from seqtok_core.foundation.errors import DataError


class LatentTextLoader(SplitLoader[LatentTextBatch]):
    """Endless batches of a split of latents; see SplitLoader."""

    def __init__(
        self,
        folder: Path,
        split: str,
        captions: CaptionTokenizer,
        config: ReadConfig,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`micro_batch` defaults to `global_batch` / `world`. Raises DataError or ConfigError."""
        reader = LatentReader(Path(folder), split, captions, config)
        plan = StepPlan(global_batch, micro_batch or max(global_batch // world, 1), rank, world)
        super().__init__(reader.batch, reader.shards, plan, config, seed)
        self.latent_spec = reader.latent_spec


def read_latents(
    folder: Path,
    split: str,
    captions: CaptionTokenizer,
    limit: int | None = None,
    config: ReadConfig | None = None,
) -> LatentTextBatch:
    """The whole split, or its first `limit` samples in shard order, as one batch of epoch 0."""
    reader = LatentReader(Path(folder), split, captions, config or ReadConfig(), one_pass=True)
    count = len(reader.shards) if limit is None else min(limit, len(reader.shards))
    return reader.batch(0, np.arange(count, dtype=np.int64))


class LatentReader:
    """Sample indices -> batch. `latent_spec` is the tokenizer's JSON object from dataset.json."""

    def __init__(
        self,
        folder: Path,
        split: str,
        captions: CaptionTokenizer,
        config: ReadConfig,
        one_pass: bool = False,
    ) -> None:
        self.shards = open_shards(folder, split, on_bad_shard=config.on_bad_shard, kind="latents")
        content = self.shards.manifest
        if content is None or content.latent_spec is None:
            raise DataError(f"{folder}: dataset.json has no latent_spec; export the latents again")
        self.latent_spec: Mapping[str, Any] = content.latent_spec
        self._shape = tuple(content.source.get("shape", ()))
        self._codes = CodeLayout.from_spec(content.latent_spec, f"{folder}/dataset.json")
        self._members = [m for m in (LATENT, CODES, POSITIONS) if m in self.shards.members(0)]
        self._texts = TextStore(self.shards, captions, config.levels, config.max_tokens, config.captioned_share)
        numbers = 4 * int(np.prod(self._shape))
        numbers += sum(8 * int(np.prod(self._shape_of(member))) for member in self._members if member != LATENT)
        needed = len(self.shards) * numbers + self._texts.bytes_needed
        self._keep = self._texts.keep = not one_pass and config.keeps(needed)
        self._kept: dict[str, Tensor] | None = None

    def batch(self, epoch: int, indices: NDArray[np.int64]) -> LatentTextBatch:
        """Raises DataError naming the sample that cannot be read."""
        index = torch.from_numpy(indices)
        arrays = self._arrays(index)
        return LatentTextBatch(
            latents=arrays[LATENT],
            codes=arrays.get(CODES),
            positions=arrays.get(POSITIONS),
            index=index,
            epoch=torch.full_like(index, epoch),
            **self._texts.fields(indices),
        )

    def latents(self, indices: NDArray[np.int64]) -> Tensor:
        """(B, K, D) float32. Raises DataError naming the sample that cannot be read."""
        return self._arrays(torch.from_numpy(indices))[LATENT]

    def _shape_of(self, member: str) -> tuple[int, ...]:
        if member == CODES and self._codes is not None:
            return self._codes.shape
        return self._shape if member == LATENT else self._shape[:1]

    def _arrays(self, index: Tensor) -> dict[str, Tensor]:
        if not self._keep:
            return {member: self._read(member, index.tolist()) for member in self._members}
        if self._kept is None:
            everything = list(range(len(self.shards)))
            self._kept = {member: self._read(member, everything) for member in self._members}
        return {member: values[index] for member, values in self._kept.items()}

    def _read(self, member: str, indices: list[int]) -> Tensor:
        """(B, K, D) float32 for latents, (B, K) int64 for codes and positions, codes of Q > 1 per latent (B, K, Q)."""
        shape = self._shape_of(member)
        kind = np.dtype(np.float32 if member == LATENT else np.int64)
        values = np.empty((len(indices), *shape), dtype=kind)
        for row, index in enumerate(indices):
            place = self.shards.place(index)
            array = load_array(self.shards.read(index, (member,)), place)
            if array.shape != shape:
                raise DataError(f"{place}: {member} has shape {array.shape} instead of {shape}")
            if member == CODES and self._codes is not None:
                self._codes.check(array, place)
            values[row] = array
        if member == LATENT and not np.isfinite(values).all():
            row = int(np.argmax(~np.isfinite(values).reshape(len(indices), -1).all(axis=1)))
            raise DataError(f"{self.shards.place(indices[row])}: latents are not finite; export them again")
        return torch.from_numpy(values)
