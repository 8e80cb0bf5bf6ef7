"""Plans count what a training really holds, and say what they assume."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from data_pipelines.samples import LatentTextBatch
from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seqtok.cli import app
from seqtok.plan.answer import answer_plan
from seqtok.plan.request import PlanRequest
from seqtok.runs.base import AssumedData
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.kinds import load_kind
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training import TrainConfig
from seqtok_core.training.costs.flops import lent
from seqtok_core.training.costs.memory import footprint, states_of
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.optimizer.optim import parameter_groups
from seqtok_core.training.processes.distributed import World, connect
from tests.seq_tokenizer.toy import toy_batch, toy_tokenizer
from tests.slow import rest_slow

WIDTH = 256
NO_DATA = ["data.folder=/nowhere/at/all"]


class Matrices(nn.Module):
    """Three quarters of a million weights, of which Muon trains two thirds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 2 * WIDTH, bias=False), nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.table = nn.Linear(WIDTH, 2 * WIDTH, bias=False)

    def muon_excluded(self) -> set[str]:
        return {"table.weight"}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.second(self.first(x)).square().sum() + self.table(x).square().sum())}


def train_config(**changes: Any) -> TrainConfig:
    return TrainConfig.parse({"images": 100, "batch": 1, "precision": "fp32", **changes})


def bytes_alive() -> int:
    gc.collect()
    tensors = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter) and o.device.type == "cpu"]
    tensors += [p.grad for p in tensors if p.is_leaf and p.grad is not None]  # C++ holds those
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("stage", rest_slow([0, 3, 1, 2], fast=2))
@pytest.mark.parametrize("ema_decay", rest_slow([0.9, None]))
def test_states_are_what_an_engine_holds(stage: int, ema_decay: float | None):
    """All tensors that are alive between the backward pass and the step, in one process."""
    config = train_config(zero_stage=stage, ema_decay=ema_decay)
    before = bytes_alive()
    model, world = Matrices(), World(0, 1, 0, torch.device("cpu"))
    groups = parameter_groups(model.named_parameters(), model.muon_excluded(), config)
    states = states_of(groups, config, stage, 1)
    del groups
    connect(world)
    engine = Engine(model, config, world)
    for step in range(3):
        engine.backward(engine.forward(torch.ones(1, WIDTH))["loss"])
        held = bytes_alive() - before
        engine.step(step)
    engine.close()
    assert held == pytest.approx(states.resident - states.buckets, rel=0.02)


def test_states_are_cut_by_the_stages():
    config, model = train_config(), Matrices()
    groups = parameter_groups(model.named_parameters(), model.muon_excluded(), config)
    n = sum(p.numel() for p in model.parameters())
    at = {stage: states_of(groups, config, stage, 8) for stage in range(4)}
    assert at[0].optimizer == 4 * (2 * n // 3 + 2 * n // 3)  # one value for Muon's two thirds, two for the rest
    assert at[1].optimizer == at[0].optimizer // 8
    assert at[1].average == at[0].average // 8
    assert at[2].gradients == at[0].gradients // 8
    assert at[3].weights > 4 * n  # gathered whole for use
    moved = states_of(groups, train_config(zero_stage=2, offload="optimizer"), 2, 8)
    assert moved.optimizer == moved.average == 0
    assert moved.host == at[2].optimizer + at[2].average + 4 * n // 8


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_activations_are_what_the_allocator_hands_out(precision: torch.dtype):
    """Trusted reference: the profiler's record of every allocation."""
    objective, batch = TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig()), toy_batch(32)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        counted = footprint(objective, batch).bytes

        def run() -> None:
            with lent(objective) as borrowed:
                for p in borrowed.stand_ins.values():
                    p.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
                borrowed(batch)["loss"].backward()

        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
            run()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    assert counted == pytest.approx(peak, rel=0.05)


def test_counting_holds_no_gradient_and_changes_nothing():
    model = Matrices()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    footprint(model, torch.ones(1, WIDTH))
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_plan_for_gpus_without_data():
    answer = answer_plan("demo-tokenizer", NO_DATA, PlanRequest(gpus=8, gpu="h100", price=2.0, mfu=0.5))
    time, stages = answer["time"], answer["memory"]["stages"]
    assert answer["batch"] == {"global": 64, "micro": 8, "accumulation": 1}
    assert time["peak_flops"] == 989.4e12
    assert time["cost_usd"] == pytest.approx(time["gpu_hours"] * 2.0)
    assert time["gpu_hours"] == pytest.approx(8 * time["seconds"] / 3600)
    assert [s["stage"] for s in stages] == [0, 1, 2, 3]
    assert stages[1]["optimizer"] < stages[0]["optimizer"] / 7
    assert stages[0]["deepspeed"] is None
    assert stages[2]["deepspeed"] > 0
    assert any("pieces assumed" in note for note in answer["assumptions"])
    assert answer["warnings"] == []
    assert answer["parameters"]["total"] == sum(answer["parameters"]["groups"].values())


@pytest.mark.slow
def test_the_formula_is_the_formula():
    """FLOPs x images / (peak x MFU x GPUs), where starting operations does not take longer."""
    words = [*NO_DATA, "model.width=512", "train.batch=65536", "train.images=655360", "train.precision=fp16"]
    answer = answer_plan("demo-tokenizer", words, PlanRequest(gpus=2, gpu="t4", mfu=0.01))
    expected = answer["flops_per_image"] * 655360 / (65e12 * 0.01 * 2)
    assert answer["time"]["formula_seconds"] == pytest.approx(expected)


def test_recomputation_is_counted():
    words = [*NO_DATA, "train.activation_checkpointing=true"]
    whole, less = (answer_plan("demo-tokenizer", w, PlanRequest(gpu="h100")) for w in (NO_DATA, words))
    assert less["memory"]["stages"][0]["activations"] < 0.8 * whole["memory"]["stages"][0]["activations"]
    assert less["flops_per_image"] == whole["flops_per_image"]


def test_what_does_not_fit_is_said_with_the_way_out():
    words = [*NO_DATA, "train.batch=262144", "train.images=1000000", "train.precision=fp16"]
    answer = answer_plan("demo-tokenizer", words, PlanRequest(gpu="t4"))
    (warning,) = answer["warnings"]
    most = answer["memory"]["stages"][0]["largest_micro_batch"]
    assert f"train.micro_batch={most} fits" in warning
    assert 0 < most < 262144


@pytest.mark.parametrize(
    ("config", "words", "wish", "message"),
    [
        ("demo", [], PlanRequest(), "kind=demo"),
        ("demo-tokenizer", NO_DATA, PlanRequest(gpu="gtx1"), "choose cpu or one of b200"),
        ("demo-tokenizer", NO_DATA, PlanRequest(gpu="v100"), "V100 has no bf16"),
        ("demo-generator", NO_DATA, PlanRequest(gpu="h100"), "--latents"),
        ("demo-tokenizer", NO_DATA, PlanRequest(gpu="h100", gpus=7), "cannot be split over 7"),
    ],
)
def test_mistakes_are_one_message(config: str, words: list[str], wish: PlanRequest, message: str):
    with pytest.raises(ConfigError, match=message):
        answer_plan(config, words, wish)


def test_a_generator_is_planned_from_shapes_alone():
    run = load_kind(GeneratorRun, "demo-generator", NO_DATA)
    subject = run.workload(AssumedData(vocab=300, latents=(8, 4)), 4)
    batch = subject.batch(4)
    assert isinstance(batch, LatentTextBatch)
    assert batch.latents.shape == (4, 8, 4)
    assert int(batch.text_ids.max()) < 300
    assert torch.isfinite(subject.objective(batch)["loss"])
    assert len(subject.notes) == 3


def test_data_that_is_there_is_used(tmp_path: Path):
    run = CliRunner()
    folder = str(tmp_path / "scenes")
    scenes = ["data", "scenes", folder, "--train", "20", "--val", "0", "--test", "0", "--size", "32"]
    assert run.invoke(app, scenes).exit_code == 0
    assert run.invoke(app, ["data", "text", folder, "--vocab", "300"]).exit_code == 0
    words = ["plan", "demo-tokenizer", f"data.folder={folder}", "--gpu", "h100", "--json"]
    result = run.invoke(app, words)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout[result.stdout.index("{\n") :])
    assert answer["disk"]["data_bytes"] > 20 * 200
    assert not any("no data read" in note or "--vocab" in note for note in answer["assumptions"])
    shown = run.invoke(app, words[:-1]).output
    assert "largest micro-batch" in shown
    assert "MFU" in shown


@pytest.mark.slow
def test_a_plan_for_this_machine_measures_steps():
    words = [*NO_DATA, "train.batch=8", "train.images=80", "train.warmup_images=8", "train.threads=1"]
    answer = answer_plan("demo-tokenizer", words, PlanRequest(gpu="cpu", steps=3))
    assert answer["memory"]["measured_peak"] > answer["memory"]["stages"][0]["base"] > 100e6
    assert answer["memory"]["total"] == pytest.approx(answer["memory"]["measured_peak"], rel=0.25)
    assert answer["time"]["seconds"] == pytest.approx(10 * answer["time"]["step_seconds"])
