"""The training of a reader: AdamW over one cosine cycle, the same from the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from seqtok_core.foundation.config import Config

SEED_SPACE = 7_000_003  # the readers' pictures come from seeds that nobody else uses
Reader = TypeVar("Reader", bound=nn.Module)
Progress = Callable[[int, float], None]  # images seen, loss


class ReaderTraining(Config):
    """What every reader is trained with."""

    images: int = 64_000
    batch: int = 128
    lr: float = 4e-3  # peak of one cosine cycle with a short warm-up, AdamW
    width: int = 64  # channels
    seed: int = 0


def fit_reader(
    build: Callable[[], Reader],
    loss_of: Callable[[Reader, int, torch.Generator], Tensor],
    config: ReaderTraining,
    progress: Progress | None = None,
) -> Reader:
    """-> the trained reader in eval mode; `progress` is called after each step.

    `loss_of` gets the reader, the step's number and the generator that everything random in a step comes from.
    A pure function of the config on one machine with one number of threads.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # initial weights
        reader = build()
    steps = max(1, config.images // config.batch)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=config.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=0.15)
    reader.train()
    for step in range(steps):
        loss = loss_of(reader, step, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress((step + 1) * config.batch, float(loss.detach()))
    return reader.eval()
