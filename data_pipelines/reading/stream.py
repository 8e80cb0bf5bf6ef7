"""Batches of pictures from shards that can only be read from front to end: pipes, object stores, web servers.

Every worker of every rank draws shards with replacement, reads each to its end, and mixes samples in a buffer: all
pure functions of (seed, rank, worker, step of the start). There is no exact position: a run that continues draws
anew, and another number of ranks or workers gives other batches.
Shapes: B images, S = image_size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import IterableDataset, get_worker_info

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.pictures.augment import augment, needs
from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.reading.order import StepPlan
from data_pipelines.reading.picture_reader import BadPictures, LoaderConfig, batch_memory
from data_pipelines.reading.streamed_record import Streamed, members_read, read_streamed
from data_pipelines.reading.texts import told_captions
from data_pipelines.reading.workers import Trace, stream_from_workers
from data_pipelines.samples import ImageTextBatch
from data_pipelines.tars.remote import expand
from data_pipelines.tars.stream import stream_samples
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.config import RESUMABLE, Config
from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError
from seqtok_core.foundation.random_bits import STREAMED, philox

_SHARDS, _BUFFER = 0, 1


class StreamConfig(Config):
    """Which shards are streamed."""

    shards: str | tuple[str, ...]  # paths, pipe:COMMAND, s3://, gs://, hf://, http(s)://, with {000..009}
    num_samples: Annotated[int, Field(ge=1)]  # what counts as an epoch; nobody can count a stream
    allow_remote: Annotated[bool, RESUMABLE] = False  # whether commands may be run and the network be read
    shuffle_buffer: Annotated[int, Field(ge=1)] = 1000  # encoded samples that each worker mixes
    max_bad_shards: Annotated[int, Field(ge=0)] = 10  # with on_bad_shard: skip; more different ones are an error

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.shards,) if isinstance(self.shards, str) else self.shards


class StreamLoader:
    """A rank's endless stream of micro-batches; the same interface as ImageTextLoader."""

    def __init__(
        self,
        source: StreamConfig,
        captions: CaptionTokenizer,
        config: LoaderConfig,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Opens nothing yet. Raises ConfigError."""
        self.names = expand(source.patterns, source.allow_remote)
        self._plan = StepPlan(global_batch, micro_batch or max(global_batch // world, 1), rank, world)
        self._plan.check(source.num_samples, "`num_samples`")
        self._reader = StreamReader(self.names, source, captions, config, seed)
        self.image_size, self.global_batch = self._reader.image_size, global_batch
        self.fingerprint = fingerprint.of_value({"stream": self.names, "fields": config.fields.model_dump(mode="json")})
        self._source, self._config = source, config
        self.bad = BadPictures(source.num_samples, config.max_bad_share, instead="left out")

    @property
    def steps_per_epoch(self) -> int:
        return self._plan.steps(self._source.num_samples)

    @property
    def samples(self) -> int:
        return self.steps_per_epoch * self.global_batch

    def iterate(self, start_step: int = 0) -> Iterator[ImageTextBatch]:
        """Micro-batches; from another step than 0 on, of freshly drawn shards."""
        options, plan = self._config.worker_options(), self._plan
        if start_step and plan.rank == 0:
            warnings.warn(
                f"a stream has no exact position: step {start_step} continues with freshly drawn shards; "
                "samples may come again sooner or later than without the stop",
                stacklevel=2,
            )
        lanes = _Lanes(self._reader, plan, max(options.num_workers, 1), start_step)
        if options.num_workers:
            trace = Trace(options.num_workers, lambda number: self.names[number])
            self._reader.on_open = trace
            batches = stream_from_workers(lanes, options, trace)
        else:
            batches = lanes.batches(0)
        for batch in batches:
            self.bad.count(batch.replaced)
            yield batch.pin_memory() if options.pin_memory and not options.num_workers else batch

    def first(self, count: int) -> ImageTextBatch:
        """The first `count` samples of the shards as they are listed, without augmentation."""
        samples = (s for number in range(len(self.names)) for s in self._reader.samples(number, 0))
        return self._reader.batch(samples, count, plain=True)


@dataclass
class StreamReader:
    """Shards -> samples -> batches. Holds no state but what it has found to be damaged."""

    names: tuple[str, ...]
    source: StreamConfig
    captions: CaptionTokenizer
    config: LoaderConfig
    seed: int

    def __post_init__(self) -> None:
        missing = [key for key in ("image_size", "levels") if getattr(self.config, key) is None]
        if missing:
            raise ConfigError(f"`{missing[0]}`: must be set for a stream, which cannot be measured first")
        if self.config.weights or self.config.cache:
            raise ConfigError("`weights` and `cache` are not for streams")
        self.image_size = int(self.config.image_size or 0)
        self.full = needs(self.config.augment, self.image_size)
        self.on_open: Any = None  # told the number of a shard before it is opened
        self._damaged: set[int] = set()

    def samples(self, number: int, visit: int) -> Iterator[Streamed]:
        """Of one shard. A damaged one is an error, or ends here and is counted."""
        if self.on_open is not None:
            self.on_open(number)
        name = self.names[number]
        try:
            for key, members in stream_samples(name, members_read(self.config.fields)):
                yield from read_streamed(name, key, members, self.config.fields, visit)
        except DataError as error:
            if self.config.on_bad_shard == "error":
                raise
            self._damaged.add(number)
            if len(self._damaged) > self.source.max_bad_shards or len(self._damaged) == len(self.names):
                raise DataError(f"{len(self._damaged)} damaged shards, the last one: {error}") from None
            warnings.warn(f"damaged shard left out from where it ends: {error}", stacklevel=2)

    def batch(self, samples: Iterator[Streamed], count: int, plain: bool = False) -> ImageTextBatch:
        """The next `count` samples that can be decoded; fewer only where `samples` ends."""
        crop = None if plain else self.config.augment
        size, side = self.image_size, self.image_size if crop is None else self.full
        pixels = batch_memory(count, size)
        rows, kept, bad = pixels.numpy(), list[Streamed](), list[str]()
        buffer = np.empty((side, side, 3), dtype=np.uint8)
        while len(kept) < count and (sample := next(samples, None)) is not None:
            row = rows[len(kept)]
            try:
                decode_pixels(sample.require_image(), side, out=row if crop is None else buffer)
            except (DecodeError, DataError) as error:
                bad.append(f"{sample.place}: {error}")
                if self.config.on_bad_sample == "error":
                    raise DataError(f"{bad[-1]}; on_bad_sample: skip leaves such samples out") from None
                continue
            if crop is not None:
                augment(buffer, row, crop, self.seed, sample.visit, sample.index)
            kept.append(sample)
        share = self.config.captioned_share
        pyramids = [told_captions(sample.key, sample.captions, share) for sample in kept]
        ids = self.captions.encode_batch(pyramids, self.config.levels, self.config.max_tokens)
        return ImageTextBatch(
            images=pixels[: len(kept)].permute(0, 3, 1, 2),
            index=torch.tensor([sample.index for sample in kept], dtype=torch.int64),
            epoch=torch.tensor([sample.visit for sample in kept], dtype=torch.int64),
            keys=[sample.key for sample in kept],
            labels={
                name: torch.tensor([sample.labels[name] for sample in kept], dtype=torch.int64)
                for name in self.config.fields.labels
            },
            captions=pyramids,
            text_ids=ids[0],
            level_mask=ids[1],
            caption_ids=ids[2],
            replaced=bad,
        )


class _Lanes(IterableDataset):
    """What each worker reads: its own draws. An error of ours travels back as a value."""

    def __init__(self, reader: StreamReader, plan: StepPlan, workers: int, start_step: int) -> None:
        self._reader, self._plan, self._workers, self._start = reader, plan, workers, start_step

    def __iter__(self) -> Iterator[ImageTextBatch | SeqtokError]:
        worker = get_worker_info()
        assert worker is not None
        try:
            yield from self.batches(worker.id)
        except SeqtokError as error:
            yield error

    def batches(self, worker: int) -> Iterator[ImageTextBatch]:
        mixed = self._mixed(self._plan.rank * self._workers + worker)
        while True:
            yield self._reader.batch(mixed, self._plan.micro_batch)

    def _mixed(self, lane: int) -> Iterator[Streamed]:
        draws = self._generator(lane, _BUFFER)
        buffer: list[Streamed] = []
        for sample in self._drawn(lane):
            if len(buffer) < self._reader.source.shuffle_buffer:
                buffer.append(sample)
                continue
            place = int(draws.random_raw() % len(buffer))
            chosen, buffer[place] = buffer[place], sample
            yield chosen

    def _drawn(self, lane: int) -> Iterator[Streamed]:
        draws, visit, barren = self._generator(lane, _SHARDS), self._start, 0
        while True:
            found = False
            for sample in self._reader.samples(int(draws.random_raw() % len(self._reader.names)), visit):
                found = True
                yield sample
            visit, barren = visit + 1, 0 if found else barren + 1
            if barren > 2 * len(self._reader.names) + 10:
                raise DataError(f"{self._reader.names[0]} and {barren} more draws of shards: no sample in them")

    def _generator(self, lane: int, use: int) -> np.random.Philox:
        return philox(self._reader.seed, STREAMED + self._start, lane, use)
