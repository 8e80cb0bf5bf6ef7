"""The average of the weights: equal to torch's AveragedModel at every ZeRO stage."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from seqtok_core.training import TrainConfig, World
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.optimizer.ema import decay_at
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups
from seqtok_core.training.processes.distributed import connect
from tests.seqtok_core.training.toy import DEFAULTS, ToyBatch, ToyLoader, ToyObjective


def batches(steps: int) -> list[ToyBatch]:
    return list(itertools.islice(ToyLoader(8, 8, 0, 1).iterate(0), steps))


def reference(config: TrainConfig, steps: int) -> dict[str, torch.Tensor]:
    """The same training without the service, averaged by torch."""
    toy = ToyObjective()
    groups = parameter_groups(toy.named_parameters(), toy.muon_excluded(), config)
    optimizer = SplitOptimizer(groups, config, guarded=True)

    def average(mean: torch.Tensor, value: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        decay = decay_at(int(updates), config.ema_decay**config.ema_every)
        return decay * mean + (1 - decay) * value

    averaged = AveragedModel(toy, avg_fn=average)
    for step, batch in zip(range(steps), ToyLoader(config.batch, config.batch, 0, 1).iterate(0), strict=False):
        optimizer.set_rates(1.0)
        toy(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % config.ema_every == 0:
            averaged.update_parameters(toy)
    return averaged.module.state_dict()


@pytest.mark.parametrize(("stage", "every"), [(0, 1), (1, 3), (2, 1), (3, 3)])
def test_average_equals_torch_averaged_model(stage, every):
    settings = {**DEFAULTS, "warmup_images": 0, "schedule": "constant", "ema_decay": 0.7, "ema_every": every}
    config = TrainConfig(**settings, zero_stage=stage)
    world = World.from_environment()
    connect(world)
    engine = Engine(ToyObjective(), config, world)
    steps = 12
    for step, batch in zip(range(steps), ToyLoader(config.batch, config.batch, 0, 1).iterate(0), strict=False):
        values = engine.forward(batch)
        engine.backward(values["loss"])
        assert engine.step(step * config.batch)
    found = engine.averaged_module().state_dict()
    engine.close()
    expected = reference(config, steps)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5, msg=name)


def test_the_decay_warms_up_from_a_copy_to_its_limit():
    assert decay_at(0, 0.999) == 0.0
    assert decay_at(10, 0.999) == 0.5
    assert decay_at(10**6, 0.999) == 0.999


def test_without_average_the_weights_themselves_are_handed_out():
    world = World.from_environment()
    connect(world)
    for stage in (0, 2):
        config = TrainConfig(**DEFAULTS, ema_decay=None, zero_stage=stage)
        engine = Engine(ToyObjective(), config, world)
        batch = batches(1)[0]
        engine.backward(engine.forward(batch)["loss"])
        engine.step(0)
        copy = engine.averaged_module()
        for name, p in engine._engine.module.named_parameters():
            assert torch.equal(copy.get_parameter(name), p)
            assert copy.get_parameter(name).data_ptr() != p.data_ptr()
        assert not copy.training
        engine.close()


def test_tied_weights_are_whole_in_the_copy():
    class Tied(ToyObjective):
        def __init__(self) -> None:
            super().__init__()
            self.head.weight = self.encoder.words.weight

        def muon_excluded(self) -> set[str]:
            return {"encoder.words.weight", "encoder.places"}

    world = World.from_environment()
    connect(world)
    for stage in (0, 1):
        engine = Engine(Tied(), TrainConfig(**DEFAULTS, zero_stage=stage), world)
        engine.backward(engine.forward(batches(1)[0])["loss"])
        engine.step(0)
        copy = engine.averaged_module()
        assert torch.equal(copy.head.weight, copy.encoder.words.weight)
        assert not copy.head.weight.is_meta
        engine.close()
