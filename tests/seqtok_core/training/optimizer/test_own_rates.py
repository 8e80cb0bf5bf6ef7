"""A discriminator trains in the same engine, as a group of parameters with rates of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seqtok_core.foundation.errors import ConfigError, Preempted
from seqtok_core.training import TrainConfig, train
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups
from tests.seqtok_core.training.toy import DEFAULTS, LENGTH, WORDS, StoppedLoader, ToyBatch, ToyLoader, save_weights

RATES = {"lr": 2e-3, "betas": (0.5, 0.9)}


class Adversarial(nn.Module):
    """What a generator makes of a batch, judged by a discriminator (hinge loss, Lim and Ye 2017, arXiv:1705.02894)."""

    def __init__(self, judged: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.judged = judged  # weight of the discriminator's own loss
        self.generator = nn.Sequential(nn.Linear(LENGTH, 16), nn.Tanh(), nn.Linear(16, LENGTH))
        self.discriminator = nn.Sequential(nn.Linear(LENGTH, 16), nn.Tanh(), nn.Linear(16, 1))

    def own_rates(self) -> dict[str, dict[str, Any]]:
        return {"discriminator": RATES}

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        real = batch.ids.float() / WORDS
        fake = self.generator(real + 0.5)
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = -torch.func.functional_call(self.discriminator, fixed, fake).mean()
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        seen = (1 - on_real).relu().mean() + (1 + on_fake).relu().mean()
        loss = (fake - real).square().mean() + 0.1 * fooled + self.judged * seen
        return {"loss": loss, "seen": seen.detach()}


def run(folder: Path, stop_after: int | None = None, **settings: Any) -> Path:
    config = TrainConfig(**{**DEFAULTS, "checkpoint_every": 32, **settings})
    loader: Any = ToyLoader(config.batch, config.micro_batch_of(1), 0, 1)
    if stop_after is not None:
        loader = StoppedLoader(loader, stop_after)
    train(Adversarial(), loader, config, folder, resolved={}, on_finish=save_weights)
    return folder


def saved(folder: Path) -> dict[str, Tensor]:
    """Weights, averages and optimizer states of the last checkpoint."""
    last = max((folder / "checkpoints").iterdir())
    return {name: value for part in sorted(last.glob("*.safetensors")) for name, value in load_file(part).items()}


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stopped_run_ends_with_the_same_bits(stage: int, tmp_path: Path):
    whole = run(tmp_path / "whole", zero_stage=stage)
    with pytest.raises(Preempted):
        run(tmp_path / "parts", stop_after=5, zero_stage=stage)
    parts = run(tmp_path / "parts", zero_stage=stage)
    first, second = saved(whole), saved(parts)
    assert first.keys() == second.keys()
    assert any("discriminator" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def stepped(judged: float, clip: float | None) -> Adversarial:
    objective, config = Adversarial(judged), TrainConfig(**{**DEFAULTS, "clip": clip})
    groups = parameter_groups(objective.named_parameters(), set(), config, objective.own_rates())
    optimizer = SplitOptimizer(groups, config, guarded=True)
    batch = next(ToyLoader(8, 8, 0, 1).iterate(0))
    for _ in range(3):
        objective(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return objective


def test_the_discriminators_gradient_does_not_reach_the_generator():
    objective, batch = Adversarial(), next(ToyLoader(8, 8, 0, 1).iterate(0))
    gradients = []
    for judged in (0.0, 1.0):
        objective.judged = judged
        objective.zero_grad()
        objective(batch)["loss"].backward()
        gradients.append([p.grad.clone() for p in objective.generator.parameters()])
        reached = sum(float(p.grad.abs().sum()) for p in objective.discriminator.parameters())
        assert (reached > 0) == (judged > 0)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_its_loss_may_weigh_what_it_likes_because_its_optimizer_has_no_scale():
    """AdamW divides a gradient's scale out again, up to its eps: a weight that keeps the discriminator out of the
    common norm costs it nothing."""
    one, small = (stepped(judged, clip=None).discriminator.state_dict() for judged in (1.0, 0.01))
    for name in one:
        torch.testing.assert_close(one[name], small[name], rtol=2e-3, atol=2e-4)


def test_it_is_a_group_with_its_own_rates():
    config = TrainConfig(**DEFAULTS)
    objective = Adversarial()
    groups = {
        g["title"]: g for g in parameter_groups(objective.named_parameters(), set(), config, {"discriminator": RATES})
    }
    own = groups.pop("discriminator")
    assert (own["lr"], own["betas"], own["muon"], own["weight_decay"]) == (2e-3, (0.5, 0.9), False, 0.0)
    assert own["names"] == [f"discriminator.{name}" for name, _ in objective.discriminator.named_parameters()]
    assert not any(name.startswith("discriminator") for group in groups.values() for name in group["names"])


@pytest.mark.parametrize(
    "rates", [{"nobody": RATES}, {"discriminator": {}}, {"discriminator": {**RATES, "momentum": 1}}]
)
def test_rates_of_nobody_or_without_meaning_are_refused(rates: dict[str, Any]):
    with pytest.raises(ValueError, match="own_rates"):
        parameter_groups(Adversarial().named_parameters(), set(), TrainConfig(**DEFAULTS), rates)


def test_stage_3_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"`zero_stage=3` does not work with discriminator"):
        run(tmp_path / "run", zero_stage=3)
