"""Precision, offload, recomputation, compilation: what each may change, and what it may not."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from torch import nn

from ar_model import GeneratorObjective, GeneratorObjectiveConfig
from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seqtok_core.foundation.errors import ConfigError, SeqtokError
from seqtok_core.training import TrainConfig, World, train
from seqtok_core.training.costs.speed import Speed, flops_per_image
from seqtok_core.training.engine import recompute
from seqtok_core.training.engine.precision import LossScale
from tests.ar_model import toy as ar_toy
from tests.seq_tokenizer import toy as tokenizer_toy
from tests.seqtok_core.training.toy import (
    DEFAULTS,
    ToyBatch,
    ToyLoader,
    ToyObjective,
    lines,
    train_toy,
    under_torchrun,
    weights,
)
from tests.slow import rest_slow


def test_bf16_is_the_default():
    assert TrainConfig(images=10, batch=1).precision == "bf16"


# --- fp16 and its loss scale


def test_the_scale_falls_at_once_and_rises_slowly():
    scale = LossScale("fp16", initial=4.0, grow_after=3)
    for applied, value in [(False, 2.0), (True, 2.0), (True, 2.0), (True, 4.0), (True, 4.0), (False, 2.0)]:
        scale.after(applied)
        assert scale.value == value
    scale.after(False)
    assert (scale.value, scale.can_fall) == (1.0, False)
    scale.after(False)
    assert scale.value == 1.0
    kept = LossScale("fp16")
    kept.restore(scale.state())
    assert kept.value == 1.0
    assert LossScale("bf16").value == 1.0


@pytest.mark.parametrize("stage", rest_slow([0, 3, 1, 2]))
def test_fp16_trains_near_fp32_once_its_scale_is_found(stage, tmp_path, monkeypatch):
    """The gradients that reach the optimizer are unscaled: norm and losses are those of fp32 in 3 digits."""
    monkeypatch.setattr("seqtok_core.training.engine.precision._INITIAL", 1024.0)
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (1024.0, 2000))
    train_toy(tmp_path / "half", zero_stage=stage, precision="fp16")
    train_toy(tmp_path / "full", zero_stage=stage)
    ours, theirs = lines(tmp_path / "half"), lines(tmp_path / "full")
    assert {line["loss_scale"] for line in ours} == {1024.0}
    assert ours[0]["loss"] != theirs[0]["loss"]
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=2e-3)
    assert ours[0]["grad_norm"] == pytest.approx(theirs[0]["grad_norm"], rel=5e-3)
    assert ours[-1]["loss"] == pytest.approx(theirs[-1]["loss"], rel=0.02)
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "half").values())


@pytest.mark.parametrize("stage", [0, 2])
def test_looking_for_the_scale_is_no_fault(stage, tmp_path, monkeypatch):
    """From a scale that overflows: every left-out step halves it, none counts as skipped."""
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (2.0**20, 2000))
    result = train_toy(tmp_path, zero_stage=stage, precision="fp16", max_skipped=2)
    rows = lines(tmp_path)
    fallen = 20 - math.log2(rows[-1]["loss_scale"])
    assert fallen > 2
    assert result.skipped == 0
    assert sum("loss" not in row for row in rows) == fallen
    assert math.isfinite(result.last["loss"])


@pytest.mark.parametrize("stage", [0, 3])
def test_a_nan_loss_is_a_fault_in_fp16_too_and_the_scale_stays(stage, tmp_path, monkeypatch):
    monkeypatch.setattr("seqtok_core.foundation.faults._visits", __import__("collections").Counter())
    monkeypatch.setenv("SEQTOK_FAULTS", "training.loss=nan")
    with pytest.raises(SeqtokError, match="3 steps in a row"):
        train_toy(tmp_path, zero_stage=stage, precision="fp16", max_skipped=3, log_every=1)
    assert {row["loss_scale"] for row in lines(tmp_path)} == {2.0**16}


def test_the_scale_is_part_of_the_checkpoint(tmp_path, monkeypatch):
    """10 = 5 + stop + 5, with a scale that falls before and rises after the stop."""
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (2.0**20, 3))
    settings = {"precision": "fp16", "checkpoint_every": 48, "keep": 9}
    train_toy(tmp_path / "whole", **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step_00000012")
    shutil.rmtree(tmp_path / "parts" / "model")
    assert train_toy(tmp_path / "parts", **settings).resumed_from == "step_00000006"
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(tmp_path / "parts")[name])


def test_a_gpu_without_bf16_says_so(monkeypatch):
    from seqtok_core.training.engine.precision import require_support

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ConfigError, match=r"Tesla T4 has no bf16 arithmetic; set `precision` to fp16 or fp32"):
        require_support("bf16", torch.device("cuda", 0))
    require_support("fp16", torch.device("cuda", 0))


# --- offload


@pytest.mark.parametrize(
    ("stage", "offload"), rest_slow([(3, "parameters"), (1, "optimizer"), (2, "optimizer"), (3, "optimizer")])
)
def test_offload_makes_the_same_updates(stage, offload, tmp_path):
    train_toy(tmp_path / "in", zero_stage=stage)
    result = train_toy(tmp_path / "off", zero_stage=stage, offload=offload)
    assert result.skipped == 0
    for ours, theirs in zip(lines(tmp_path / "off"), lines(tmp_path / "in"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for name, value in weights(tmp_path / "in").items():
        torch.testing.assert_close(weights(tmp_path / "off")[name], value, rtol=0, atol=3e-5)


def test_offloaded_a_nan_is_skipped_and_a_run_continues(tmp_path, monkeypatch):
    monkeypatch.setattr("seqtok_core.foundation.faults._visits", __import__("collections").Counter())
    monkeypatch.setenv("SEQTOK_FAULTS", "training.loss:3=nan")
    settings = {"zero_stage": 2, "offload": "optimizer", "checkpoint_every": 48, "keep": 9}
    assert train_toy(tmp_path, **settings).skipped == 1
    whole = weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000012")
    assert train_toy(tmp_path, **settings).resumed_from == "step_00000006"
    assert all(torch.equal(value, whole[name]) for name, value in weights(tmp_path).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"offload": "optimizer"}, "offload=optimizer needs zero_stage 1, 2 or 3"),
        ({"offload": "parameters", "zero_stage": 2}, "offload=parameters needs zero_stage=3"),
        ({"compile": True, "zero_stage": 3}, "compile=true does not work with zero_stage=3"),
        ({"precision": "fp8"}, "precision"),
        ({"timeout_minutes": 0}, "timeout_minutes"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse({"images": 10, "batch": 1, **settings})


# --- activation checkpointing


_ENGINES = [(0, "fp32"), (0, "bf16"), (3, "bf16"), (3, "fp32"), (0, "fp16"), (3, "fp16")]


@pytest.mark.parametrize(("stage", "precision"), rest_slow(_ENGINES, fast=3))
def test_recomputation_changes_no_bit(stage, precision, tmp_path):
    settings = {"zero_stage": stage, "precision": precision, "images": 40}
    train_toy(tmp_path / "kept", **settings)
    train_toy(tmp_path / "again", activation_checkpointing=True, **settings)
    assert lines(tmp_path / "again") == lines(tmp_path / "kept")
    for name, value in weights(tmp_path / "kept").items():
        assert torch.equal(value, weights(tmp_path / "again")[name]), name


def tokenizer_case(encoder: str) -> tuple[nn.Module, object]:
    return TokenizerObjective(
        tokenizer_toy.toy_tokenizer(encoder), TokenizerTrainingConfig()
    ), tokenizer_toy.toy_batch()


def generator_case() -> tuple[nn.Module, object]:
    captions = [["one shape", "a red circle"], ["one shape", "a blue square"]] * 2
    objective = GeneratorObjective(ar_toy.toy_generator(), GeneratorObjectiveConfig(), ar_toy.latent_spec())
    return objective, ar_toy.toy_batch(captions, ar_toy.random_latents(4))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["titok", "qformer", "generator"])
def test_both_objectives_name_blocks_whose_recomputation_changes_no_bit(name, precision):
    objective, batch = generator_case() if name == "generator" else tokenizer_case(name)
    calls: list[str] = []

    def gradients() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        objective.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(batch)["loss"]
        loss.backward()
        return loss.detach(), [p.grad for p in objective.parameters()]

    plain_loss, plain = gradients()

    class Count(nn.Module):
        def __enter__(self) -> None:
            calls.append("again")

        def __exit__(self, *error: object) -> None: ...

    with recompute.wrapped(objective, lambda: (Count(), Count())):
        loss, again = gradients()
    blocks = len(recompute.blocks_of(objective))
    assert blocks >= 2
    assert len(calls) >= 2 * blocks  # each once forward, once backward
    assert torch.equal(loss, plain_loss)
    for one, other in zip(plain, again, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_an_objective_without_blocks_is_refused(tmp_path):
    class Plain(ToyObjective):
        def checkpointed_blocks(self):
            return []

    config = TrainConfig(**{**DEFAULTS, "activation_checkpointing": True})
    with pytest.raises(ConfigError, match="Plain has no blocks"):
        train(Plain(), ToyLoader(8, 8, 0, 1), config, tmp_path, resolved={})


# --- FLOPs, compilation, two processes


def test_flops_do_not_count_what_is_computed_again_and_leave_no_trace():
    config, world = TrainConfig(**DEFAULTS), World.from_environment()
    objective, batch = ToyObjective(), next(ToyLoader(8, 8, 0, 1).iterate(0))
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    plain = flops_per_image(objective, batch, config, world)
    again = flops_per_image(objective, batch, config.model_copy(update={"activation_checkpointing": True}), world)
    assert plain == again > 0
    assert flops_per_image(objective, ToyBatch(batch.ids[:4], batch.keys[:4]), config, world) == pytest.approx(
        plain, rel=0.05
    )
    assert all(p.grad is None for p in objective.parameters())
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert "forward" not in vars(objective.encoder.blocks[0])


def test_mfu_is_flops_over_peak(monkeypatch):
    monkeypatch.setattr(
        "seqtok_core.training.costs.speed.peak_flops", lambda device, precision: (1e6, f"table {precision}")
    )
    monkeypatch.setattr("seqtok_core.training.costs.speed._WORTH_MEASURING_S", 0.0)
    speed = Speed(2e3, TrainConfig(**DEFAULTS), World(0, 4, 0, torch.device("cpu")))
    assert speed.mfu(100.0) == pytest.approx(2e3 * 100 / (4 * 1e6))
    assert speed.peak_source == "table fp32"
    assert Speed(2e3, TrainConfig(**DEFAULTS), World(1, 4, 1, torch.device("cpu"))).mfu(100.0) is None


def test_a_machine_without_a_compiler_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        train_toy(tmp_path, compile=True)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_compiled_training_follows_plain_training(stage, tmp_path):
    train_toy(tmp_path / "plain", zero_stage=stage, images=40)
    train_toy(tmp_path / "compiled", zero_stage=stage, images=40, compile=True)
    for ours, theirs in zip(lines(tmp_path / "compiled"), lines(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.slow
def test_options_over_two_processes(tmp_path):
    """fp16, offload and recomputation at once, at every stage that has them: near one process without them."""
    options = {"activation_checkpointing": True, "images": 64}
    jobs = [
        {"folder": str(tmp_path / f"{stage}{precision}"), "zero_stage": stage, "precision": precision, **options}
        | ({"offload": "optimizer"} if stage else {})
        for stage in range(4)
        for precision in ("fp32", "fp16")
    ]
    finished = under_torchrun(jobs)
    assert finished.returncode == 0, finished.stderr[-3000:]
    train_toy(tmp_path / "one", images=64)
    references = {"fp32": lines(tmp_path / "one"), "fp16": lines(tmp_path / "0fp16")}
    assert sum("loss" in row for row in references["fp16"]) >= 4  # the scale has been found
    for job in jobs:
        ours = lines(tmp_path / f"{job['zero_stage']}{job['precision']}")
        for mine, other in zip(ours, references[job["precision"]], strict=True):
            assert mine.keys() == other.keys()
            assert mine.get("loss") == pytest.approx(
                other.get("loss"), abs=2e-5 if job["precision"] == "fp32" else 0.05
            )
