"""A discriminator trains in the same engine, as a group of parameters with rates of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seqtok_core.foundation.errors import ConfigError, Preempted, SeqtokError
from seqtok_core.training import TrainConfig
from seqtok_core.training.optimizer.optim import parameter_groups
from tests.seqtok_core.training import adversarial_toy
from tests.seqtok_core.training.adversarial_toy import RATES, Adversarial, train_adversarial
from tests.seqtok_core.training.toy import DEFAULTS, ToyLoader, lines, under_torchrun, weights

ONE_STEP = {"images": 8, "warmup_images": 0, "schedule": "constant"}
STAGES = [(0, "none"), (1, "none"), (2, "none"), (2, "optimizer")]  # and offload


def saved(folder: Path) -> dict[str, Tensor]:
    """Weights, averages and optimizer states of the last checkpoint."""
    last = max((folder / "checkpoints").iterdir())
    return {name: value for part in sorted(last.glob("*.safetensors")) for name, value in load_file(part).items()}


def assert_equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert any("exp_avg_sq:0:discriminator" in name for name in first)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def gradients(judged: float) -> dict[str, Tensor]:
    """Of the first step, before any clipping."""
    objective = Adversarial(judged)
    objective(next(ToyLoader(8, 8, 0, 1).iterate(0)))["loss"].backward()
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def norm(values: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.cat([value.flatten() for value in values]))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stopped_run_ends_with_the_same_bits(stage: int, tmp_path: Path):
    whole = train_adversarial(tmp_path / "whole", zero_stage=stage)
    with pytest.raises(Preempted):
        train_adversarial(tmp_path / "parts", stop_after=5, zero_stage=stage)
    parts = train_adversarial(tmp_path / "parts", zero_stage=stage)
    assert_equal_states(saved(whole), saved(parts))
    assert lines(whole) == lines(parts)


@pytest.mark.slow
def test_two_processes_follow_one_and_resume_with_the_same_bits(tmp_path: Path):
    stages = (0, 1, 2)
    whole = [{"folder": str(tmp_path / f"whole{s}"), "zero_stage": s, "clip": 0.1} for s in stages]
    parts = [{"folder": str(tmp_path / f"parts{s}"), "zero_stage": s, "clip": 0.1} for s in stages]
    for jobs in ([*whole, *({**job, "stop_after": 5} for job in parts)], parts):
        finished = under_torchrun(jobs, program=adversarial_toy.__file__)
        assert finished.returncode == 0, finished.stderr[-3000:]
    one = weights(train_adversarial(tmp_path / "one", clip=0.1))
    for stage in stages:
        assert_equal_states(saved(tmp_path / f"whole{stage}"), saved(tmp_path / f"parts{stage}"))
        for name, value in weights(tmp_path / f"whole{stage}").items():
            torch.testing.assert_close(value, one[name], rtol=0, atol=5e-5)


def test_the_discriminators_loss_sends_nothing_to_the_generator():
    without, strong = gradients(0.0), gradients(100.0)
    for name, gradient in without.items():
        if name.startswith("generator"):
            assert gradient.any()
            assert torch.equal(gradient, strong[name])
        else:
            assert not gradient.any()
    assert strong["discriminator.0.weight"].any()


@pytest.mark.parametrize(("stage", "offload"), STAGES)
def test_a_strong_discriminator_leaves_the_generators_update_alone(stage: int, offload: str, tmp_path: Path):
    """The clip acts on both, each by its own norm; weights and states of the generator are the same bits."""
    settings = {**ONE_STEP, "zero_stage": stage, "offload": offload, "clip": 0.01}
    one, other = (train_adversarial(tmp_path / str(judged), Adversarial(judged), **settings) for judged in (0.0, 100.0))
    ours, theirs = saved(one), saved(other)
    for name in ours:
        if "generator" in name:
            assert torch.equal(ours[name], theirs[name]), name
    assert not torch.equal(ours["weight:0:discriminator.0.weight"], theirs["weight:0:discriminator.0.weight"])
    own = norm([value for name, value in gradients(0.0).items() if name.startswith("generator")])
    for folder in (one, other):
        assert lines(folder)[0]["grad_norm"] == pytest.approx(float(own), rel=1e-5)


@pytest.mark.parametrize(("stage", "offload"), STAGES)
@pytest.mark.parametrize("clip", [0.3, None])
def test_a_discriminator_is_clipped_by_its_own_norm(clip: float | None, stage: int, offload: str, tmp_path: Path):
    settings = {**ONE_STEP, "zero_stage": stage, "offload": offload, "clip": 0.01}
    found = saved(train_adversarial(tmp_path, Adversarial(clip=clip), **settings))
    expected = {name: value for name, value in gradients(1.0).items() if name.startswith("discriminator")}
    whole = norm(list(expected.values()))
    assert whole > 0.3
    factor = 1.0 if clip is None else clip / whole
    for name, gradient in expected.items():  # AdamW's first moment after one step: (1 - 0.5) * gradient
        momentum = found[f"exp_avg:0:{name}"].view_as(gradient)
        torch.testing.assert_close(momentum, 0.5 * factor * gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_gradient_of_the_discriminator_that_is_not_finite_leaves_both_alone(stage: int, tmp_path: Path):
    objective = Adversarial()
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    objective.discriminator[0].bias.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(SeqtokError, match="no finite gradient in 2 steps"):
        train_adversarial(tmp_path, objective, zero_stage=stage, max_skipped=2)
    assert all(torch.equal(p, before[name]) for name, p in objective.named_parameters())


@pytest.mark.parametrize("stage", [0, 2])
def test_only_the_generator_is_averaged(stage: int, tmp_path: Path):
    folder = train_adversarial(tmp_path, zero_stage=stage)
    states, model = saved(folder), weights(folder)
    for name, value in model.items():
        average = states.get(f"average:0:{name}")
        assert (average is None) == name.startswith("discriminator")
        expected = states[f"weight:0:{name}"] if average is None else average
        assert torch.equal(value, expected.view_as(value)), name


def test_it_is_a_group_with_its_own_rates():
    config = TrainConfig(**DEFAULTS, clip=0.7)
    objective, rates = Adversarial(), {"discriminator": RATES}
    groups = {g["title"]: g for g in parameter_groups(objective.named_parameters(), set(), config, rates)}
    own = groups.pop("discriminator")
    assert (own["lr"], own["betas"], own["muon"], own["weight_decay"]) == (2e-3, (0.5, 0.9), False, 0.0)
    assert (own["owner"], own["clip"]) == ("discriminator", 0.7)
    assert own["names"] == [f"discriminator.{name}" for name, _ in objective.discriminator.named_parameters()]
    assert {group["owner"] for group in groups.values()} == {""}
    assert not any(name.startswith("discriminator") for group in groups.values() for name in group["names"])


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"nobody": RATES}, "nobody, which has no parameter"),
        ({"discriminator": {}}, "discriminator: lr is missing"),
        ({"discriminator": {**RATES, "momentum": 1}}, "discriminator: momentum is no rate"),
    ],
)
def test_rates_of_nobody_or_without_meaning_are_refused(rates: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        parameter_groups(Adversarial().named_parameters(), set(), TrainConfig(**DEFAULTS), rates)


def test_stage_3_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"`zero_stage=3` does not work with discriminator"):
        train_adversarial(tmp_path / "run", zero_stage=3)


@pytest.mark.parametrize("stage", [0, 2])
def test_recomputation_of_the_generator_changes_no_bit_and_that_of_the_discriminator_is_refused(
    stage: int, tmp_path: Path
):
    class Recomputed(Adversarial):
        def checkpointed_blocks(self) -> list[nn.Module]:
            return [self.generator]

    class Wrong(Adversarial):
        def checkpointed_blocks(self) -> list[nn.Module]:
            return [self.generator, self.discriminator[0]]

    settings = {"zero_stage": stage, "activation_checkpointing": True}
    kept = train_adversarial(tmp_path / "kept", zero_stage=stage)
    assert_equal_states(saved(kept), saved(train_adversarial(tmp_path / "again", Recomputed(), **settings)))
    with pytest.raises(ValueError, match="names blocks of discriminator"):
        train_adversarial(tmp_path / "wrong", Wrong(), **settings)
