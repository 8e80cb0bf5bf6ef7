"""A tokenizer and its discriminator, trained by the service on the batches of the toy."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipelines.samples import ImageTextBatch
from seqtok_core.training import TrainConfig, train
from tests.seq_tokenizer.losses.reached import objective_of
from tests.seq_tokenizer.toy import toy_batch
from tests.seqtok_core.training.toy import DEFAULTS, save_weights

BATCH = 8
TERMS: dict[str, Any] = {"pixels": {}, "adversary": {"width": 4, "layers": 2, "start_images": 5 * BATCH, "lr": 1e-2}}


class Pictures:
    """The toy's pictures, over and over; a SIGTERM in step `stop`."""

    def __init__(self, stop: int | None) -> None:
        self.global_batch, self.stop = BATCH, stop

    def iterate(self, start_step: int) -> Iterator[ImageTextBatch]:
        step = start_step
        while True:
            if step + 1 == self.stop:
                os.kill(os.getpid(), signal.SIGTERM)
            batch = toy_batch(BATCH, first=BATCH * (step % 8))
            yield replace(batch, epoch=batch.epoch + step // 8)
            step += 1


def train_pictures(folder: Path, stop: int | None = None, terms: dict[str, Any] | None = None, **settings: Any) -> Path:
    config = TrainConfig(**{**DEFAULTS, "batch": BATCH, "images": 12 * BATCH, "checkpoint_every": 32, **settings})
    train(objective_of(**(terms or TERMS)), Pictures(stop), config, folder, resolved={}, on_finish=save_weights)
    return folder
