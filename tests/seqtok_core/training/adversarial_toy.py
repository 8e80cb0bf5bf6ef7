"""A generator and a discriminator in one objective, trained by the service; as a program under torchrun, too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqtok_core.foundation.errors import Preempted
from seqtok_core.training import TrainConfig, World, train
from tests.seqtok_core.training.toy import DEFAULTS, LENGTH, WORDS, StoppedLoader, ToyBatch, ToyLoader, save_weights

RATES = {"lr": 2e-3, "betas": (0.5, 0.9)}


class Adversarial(nn.Module):
    """What a generator makes of a batch, judged by a discriminator (hinge loss, Lim and Ye 2017, arXiv:1705.02894)."""

    def __init__(self, judged: float = 1.0, clip: float | None = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.judged = judged  # weight of the discriminator's own loss
        self.rates = {**RATES, "clip": clip}
        self.generator = nn.Sequential(nn.Linear(LENGTH, 16), nn.Tanh(), nn.Linear(16, LENGTH))
        self.discriminator = nn.Sequential(nn.Linear(LENGTH, 16), nn.Tanh(), nn.Linear(16, 1))

    def own_rates(self) -> dict[str, dict[str, Any]]:
        return {"discriminator": self.rates}

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        real = batch.ids.float() / WORDS
        fake = self.generator(real + 0.5)
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = -torch.func.functional_call(self.discriminator, fixed, fake).mean()
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        seen = (1 - on_real).relu().mean() + (1 + on_fake).relu().mean()
        loss = (fake - real).square().mean() + 0.1 * fooled + self.judged * seen
        return {"loss": loss, "seen": seen.detach()}


def train_adversarial(
    folder: Path, objective: nn.Module | None = None, stop_after: int | None = None, **settings: Any
) -> Path:
    config, world = TrainConfig(**{**DEFAULTS, "checkpoint_every": 32, **settings}), World.from_environment()
    loader: Any = ToyLoader(config.batch, config.micro_batch_of(world.size), world.rank, world.size)
    if stop_after is not None:
        loader = StoppedLoader(loader, stop_after)
    train(objective or Adversarial(), loader, config, folder, resolved={}, on_finish=save_weights)
    return folder


def main(jobs: list[dict[str, Any]]) -> None:
    for job in jobs:
        try:
            train_adversarial(Path(job.pop("folder")), **job)
        except Preempted:
            assert "stop_after" in job


if __name__ == "__main__":
    from seqtok_core.training.processes.distributed import leave

    main(json.loads(sys.argv[-1]))
    leave(0)
