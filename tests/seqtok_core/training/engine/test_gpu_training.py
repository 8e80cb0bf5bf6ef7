"""On a GPU: the same losses and gradients as on the CPU, every precision and ZeRO stage, resume, sampling.

Run with `python -m pytest -m gpu`; skipped where there is no GPU.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ar_model import GeneratorObjective, GeneratorObjectiveConfig
from data_pipelines.samples import to_model
from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok_core.training import TrainConfig, train
from seqtok_core.training.costs.flops import count_flops
from seqtok_core.training.costs.hardware import measured_peak
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups
from seqtok_core.training.processes.distributed import World, connect
from tests.ar_model import toy as ar_toy
from tests.seq_tokenizer import toy as tokenizer_toy
from tests.seqtok_core.training.toy import in_child, lines, train_toy, weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

GPU = torch.device("cuda", 0)
STEPS = 4
CAPTIONS = [["one shape", "a red circle"], ["one shape", "a blue square"]] * 4


def tokenizer_case() -> tuple[nn.Module, list[Any]]:
    objective = TokenizerObjective(tokenizer_toy.toy_tokenizer(), TokenizerTrainingConfig())
    return objective.train(), [tokenizer_toy.toy_batch(8, first=8 * i) for i in range(STEPS)]


def generator_case() -> tuple[nn.Module, list[Any]]:
    generator = ar_toy.toy_generator()
    config = GeneratorObjectiveConfig(text_to_image=0.5, prompt_weight=0.1, input_noise=0.1)
    objective = GeneratorObjective(generator, config, ar_toy.latent_spec())
    batches = [ar_toy.toy_batch(CAPTIONS, ar_toy.random_latents(8, seed), 8 * seed) for seed in range(STEPS)]
    return objective.train(), batches


CASES = {"tokenizer": tokenizer_case, "generator": generator_case}


def settings(**changes: Any) -> TrainConfig:
    values = {"images": 8 * STEPS, "batch": 8, "precision": "fp32", "schedule": "constant", "lr": 1e-3}
    return TrainConfig.parse({**values, "muon_lr": 5e-3, "ema_decay": 0.9, **changes})


def losses_on_cpu(case: str) -> list[float]:
    """A plain loop, without DeepSpeed."""
    objective, batches = CASES[case]()
    config = settings()
    groups = parameter_groups(objective.named_parameters(), objective.muon_excluded(), config)
    optimizer = SplitOptimizer(groups, config, guarded=True)
    losses = []
    for batch in batches:
        loss = objective(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def losses_on_gpu(case: str, **changes: Any) -> list[float]:
    objective, batches = CASES[case]()
    world = World(0, 1, 0, GPU)
    connect(world)
    engine = Engine(objective, settings(**changes), world)
    losses = []
    for step, batch in enumerate(batches):
        values = engine.forward(batch.to(GPU))
        engine.backward(values["loss"])
        engine.step(8 * step)
        losses.append(float(values["loss"].detach()))
        assert values["loss"].device == GPU
    averaged = engine.averaged_module()
    assert averaged is not None
    assert all(torch.isfinite(p).all() for p in averaged.parameters())
    engine.close()
    return losses


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_the_cpu(case: str):
    objective, batches = CASES[case]()
    there = copy.deepcopy(objective).to(GPU)
    here_values, there_values = objective(batches[0]), there(batches[0].to(GPU))
    assert here_values.keys() == there_values.keys()
    for name, value in here_values.items():
        torch.testing.assert_close(there_values[name].cpu(), value, atol=1e-4, rtol=1e-4)
    here_values["loss"].backward()
    there_values["loss"].backward()
    for (name, a), b in zip(objective.named_parameters(), there.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(b.grad.cpu(), a.grad, atol=1e-3, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_training_steps_are_those_of_the_cpu_at_every_stage(case: str, stage: int):
    assert losses_on_gpu(case, zero_stage=stage) == pytest.approx(losses_on_cpu(case), rel=2e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize("case", CASES)
def test_half_precisions_stay_near_fp32(case: str, stage: int, precision: str):
    losses = losses_on_gpu(case, zero_stage=stage, precision=precision)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[0] == pytest.approx(losses_on_cpu(case)[0], rel=0.05)


@pytest.mark.parametrize("changes", [{"offload": "optimizer", "zero_stage": 2}, {"offload": "parameters"}])
def test_offloading_changes_no_step(changes: dict[str, Any]):
    got = losses_on_gpu("tokenizer", **{"zero_stage": 3, **changes})
    assert got == pytest.approx(losses_on_cpu("tokenizer"), rel=2e-3)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_killed_run_continues(stage: int, tmp_path: Path):
    """Kernels that add in any order forbid equal bits; equal within rounding is what a GPU gives."""
    every = {"checkpoint_every": 24, "log_every": 2, "zero_stage": stage}
    train_toy(tmp_path / "whole", **every)
    assert in_child(tmp_path / "killed", faults="training.step:5=kill", **every) == -9
    result = train_toy(tmp_path / "killed", **every)
    assert result.resumed_from == "step_00000003"
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "killed")[name], value, atol=1e-4, rtol=1e-3)
    assert [line["step"] for line in lines(tmp_path / "killed")] == [line["step"] for line in lines(tmp_path / "whole")]


class Batches:
    """A loader of what lies in memory."""

    global_batch = 8

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def iterate(self, start_step: int) -> Any:
        return iter(self._batches[start_step:])


@pytest.mark.parametrize("case", CASES)
def test_a_whole_run_with_samples(case: str, tmp_path: Path):
    """train() as the commands call it: metrics, checkpoint, hooks that get a module on the GPU."""
    objective, batches = CASES[case]()
    devices = []

    def hook(module: nn.Module, folder: Path, images: int = 0) -> None:
        devices.append(next(module.parameters()).device)

    config = settings(sample_every=16, log_every=1)
    result = train(objective, Batches(batches), config, tmp_path, resolved={}, on_sample=hook, on_finish=hook)
    assert result.steps == STEPS
    assert math.isfinite(result.last["loss"])
    assert devices == [GPU] * 3


def test_pictures_of_a_tokenizer_on_the_gpu():
    model = tokenizer_toy.toy_tokenizer()
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    here = encode_all(model, images)
    model.to(GPU)
    there = encode_all(model, images)
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3)
    assert decode_all(model, there, 3).shape == images.shape
    model.measure_latents(to_model(images).split(2))  # batches from the CPU
    assert model.spec.mean.device.type == "cpu"


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling_is_that_of_the_cpu(guidance: float):
    model = ar_toy.toy_generator()
    prompts = ["a red circle", "", "a blue square above a red circle"]
    here = model.sample(prompts, guidance=guidance, flow={"steps": 4})
    there: Tensor = model.to(GPU).sample(prompts, guidance=guidance, flow={"steps": 4})
    assert there.device == GPU
    torch.testing.assert_close(there.cpu(), here, atol=5e-3, rtol=5e-3)
    alone = model.sample(prompts[2:], guidance=guidance, flow={"steps": 4})
    torch.testing.assert_close(alone, there[2:], atol=5e-3, rtol=5e-3)


def test_flops_do_not_depend_on_the_device():
    """Attention backward aside: kernels differ in whether they compute the scores again."""
    for case in CASES.values():
        objective, batches = case()
        here = count_flops(objective, batches[0])
        there = count_flops(objective.to(GPU), batches[0].to(GPU))
        assert there == pytest.approx(here, rel=0.1)


def test_the_peak_is_that_of_a_gpu():
    assert measured_peak("cuda:0", "bf16").flops_per_s > 2e12
