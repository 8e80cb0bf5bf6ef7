"""Encoded pictures: shards of latents with their captions, written one by one, killed and continued.

Latents are stored as the tokenizer gave them, as float16. `latent_spec` is a JSON object of the tokenizer's
room; here it is kept, not understood. Shapes: K latents of D channels.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.shards import manifest as manifests
from data_pipelines.shards.codes import CodeLayout
from data_pipelines.shards.files import (
    commit_shard,
    index_samples,
    is_committed,
    json_member,
    read_index,
    shard_info,
    shard_name,
)
from data_pipelines.shards.manifest import Manifest, SplitInfo
from data_pipelines.shards.output import Resume, output_folder
from data_pipelines.tars.index import read_span
from seqtok_core.foundation import faults, fingerprint
from seqtok_core.foundation.errors import DataError

LATENT = "latent.npy"
CODES, POSITIONS = "codes.npy", "positions.npy"  # int32, where they exist


@dataclass(frozen=True, kw_only=True)
class LatentRecord:
    """One encoded picture."""

    key: str
    latents: NDArray[np.floating]  # (K, D)
    captions: Sequence[str]
    labels: Mapping[str, int] = field(default_factory=dict)
    codes: NDArray[np.integer] | None = None  # (K,), or (K, Q)
    positions: NDArray[np.integer] | None = None  # (K,)


class LatentWriter:
    """Writes a latent data set: `with writer.open():` write every shard that is not done, then `finish`."""

    def __init__(
        self,
        out: Path,
        *,
        name: str,
        shape: tuple[int, int],
        plan: Mapping[str, Any],
        source: Manifest | None = None,
        codes: CodeLayout | None = None,
    ) -> None:
        """`shape` is (K, D). `plan` is JSON that decides every byte: tokenizer id, fingerprint of the
        pictures, settings. `source` is the manifest of the pictures: its labels and levels are kept.
        `codes` says what codes each record must have beside its latents.
        """
        self.out, self.name, self._shape, self._source, self._codes = Path(out), name, shape, source, codes
        self.plan = {"latents": dict(plan), "shape": list(shape), "name": name}
        if codes is not None:
            self.plan["codes"] = codes.to_json()
        self._identity = fingerprint.of_value(self.plan)

    @contextlib.contextmanager
    def open(self, *, overwrite: bool = False, resume: Resume = "auto") -> Iterator[None]:
        """Hold the folder. Raises DataError when it holds anything but this export."""
        with output_folder(self.out, self.plan, overwrite=overwrite, resume=resume):
            yield

    def is_done(self, split: str, number: int) -> bool:
        """Whether the shard is committed and whole; reads all of it."""
        return is_committed(self.out, self._file(split, number), self._task(split, number))

    def write(
        self, split: str, number: int, records: Iterable[LatentRecord], extra: Mapping[str, Any] | None = None
    ) -> None:
        """Commit one shard; `extra` is JSON kept among its index's facts.

        Raises DataError naming a key whose latents are not finite in float16, or whose codes are none.
        """
        kept = list(records)
        samples = [(record.key, self._members(record)) for record in kept]
        facts = {"levels": max((len(record.captions) for record in kept), default=0), **(extra or {})}
        commit_shard(self.out, self._file(split, number), samples, task=self._task(split, number), facts=facts)

    def facts(self, split: str, number: int) -> dict[str, Any]:
        """What the index of a committed shard says about it."""
        return read_index(self.out, self._file(split, number))["facts"]

    def finish(
        self,
        latent_spec: Mapping[str, Any],
        shards: Mapping[str, int],
        extra: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Write `dataset.json`. `shards` is split -> number of shards, all of which must be committed; `extra` is
        JSON kept beside the plan in its `source`."""
        splits, levels = {}, 0
        for split, count in sorted(shards.items()):
            missing = [number for number in range(count) if not self.is_done(split, number)]
            if missing:
                raise DataError(f"{self.out}: split {split}: shard {missing[0]} of {count} is not written")
            files = [self._file(split, number) for number in range(count)]
            infos = tuple(shard_info(self.out, file) for file in files)
            splits[split] = SplitInfo(samples=sum(info.samples for info in infos), shards=infos)
            levels = max([levels, *(read_index(self.out, file)["facts"]["levels"] for file in files)])
        handed = self._source.model_dump(include=_HANDED_ON) if self._source else {}
        result = Manifest(
            kind="latents",
            name=self.name,
            levels=levels,
            splits=splits,
            source={**self.plan, **(extra or {})},
            latent_spec=dict(latent_spec),
            **handed,
        )
        faults.hit("latents.before_manifest")
        manifests.write_manifest(self.out, result)
        return result

    def stored(self, split: str, count: int) -> Iterator[NDArray[np.float32]]:
        """(N, K, D) of each committed shard of a split, in order, as stored: what statistics are made of."""
        for number in range(count):
            file = self._file(split, number)
            index = read_index(self.out, file)
            with open(self.out / file, "rb") as stream:
                spans = [s.members[LATENT] for s in index_samples(index, self.out / file)]
                rows = [load_array(read_span(stream.fileno(), span), file) for span in spans]
            yield np.stack(rows).astype(np.float32)

    def _members(self, record: LatentRecord) -> dict[str, bytes]:
        latents = np.asarray(record.latents)
        if latents.shape != self._shape:
            raise DataError(f"{record.key}: latents have shape {latents.shape} instead of {self._shape}")
        with np.errstate(over="ignore"):
            stored = latents.astype(np.float16)
        if not np.isfinite(stored).all():
            worst = float(np.abs(latents).max())
            raise DataError(f"{record.key}: latents are not finite numbers of float16 (largest: {worst})")
        if self._codes is not None:
            if record.codes is None:
                raise DataError(f"{record.key}: has no codes, its tokenizer has a codebook")
            self._codes.check(np.asarray(record.codes), record.key)
        text = record.captions[-1] if record.captions else ""
        content = {"captions": list(record.captions), "labels": dict(record.labels)}
        members = {LATENT: save_array(stored), "json": json_member(content), "txt": text.encode()}
        for name, values in ((CODES, record.codes), (POSITIONS, record.positions)):
            if values is not None:
                members[name] = save_array(np.asarray(values).astype(np.int32))
        return members

    def _file(self, split: str, number: int) -> str:
        return shard_name(self.name, split, number)

    def _task(self, split: str, number: int) -> str:
        return fingerprint.of_value([self._identity, split, number])


_HANDED_ON = {"image_size", "levels_made", "level_names", "level_labels", "labels", "classes"}


def save_array(values: NDArray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def load_array(data: bytes, place: str) -> NDArray:
    """Raises DataError naming the place; never unpickles."""
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, TypeError) as error:
        raise DataError(f"{place}: not a numpy array ({error})") from None
