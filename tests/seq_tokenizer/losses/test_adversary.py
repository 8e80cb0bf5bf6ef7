"""The discriminator: a second player that starts late, keeps to itself, and resumes with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seqtok_core.foundation.errors import Preempted
from seqtok_core.training.costs.flops import count_flops
from tests.seq_tokenizer.losses.reached import objective_of, parts_reached
from tests.seq_tokenizer.losses.service import BATCH, train_pictures
from tests.seq_tokenizer.toy import toy_batch
from tests.seqtok_core.training.toy import lines

DECODED = {"encoder", "bottleneck", "decoder"}


def gradients(weight: float, factor: float = 1.0) -> dict[str, Tensor]:
    objective = objective_of(adversary={"width": 4, "layers": 2, "weight": weight})
    with torch.no_grad():
        objective.terms["adversary"].discriminator[-1].bias += factor
    objective(toy_batch())["loss"].backward()
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def test_each_player_learns_from_its_own_loss_alone():
    assert parts_reached(objective_of(adversary={"width": 4, "layers": 2})) == DECODED | {"adversary"}
    without, with_weight = gradients(0.0), gradients(1.0)
    for name, gradient in without.items():
        if name.startswith("terms"):
            assert gradient.any()
            assert torch.equal(gradient, with_weight[name])
        else:
            assert not gradient.any()


def test_it_is_fooled_by_what_it_takes_for_real():
    """The tokenizer's gradient step raises the discriminator's verdict on whole decodings."""
    objective = objective_of(adversary={"width": 4, "layers": 2, "weight": 1.0})
    judge = objective.terms["adversary"].discriminator

    def verdict() -> Tensor:
        return judge(objective._view(toy_batch())[0].whole).mean().detach()

    before = verdict()
    objective(toy_batch())["loss"].backward()
    with torch.no_grad():
        for p in objective.tokenizer.parameters():
            if p.grad is not None:
                p -= 1e-2 * p.grad
    assert verdict() > before


def test_it_learns_what_is_real():
    torch.manual_seed(0)
    objective = objective_of(adversary={"width": 8, "layers": 2})
    optimizer, found = torch.optim.Adam(objective.terms.parameters(), lr=1e-2), []
    for _ in range(30):
        values = objective(toy_batch())
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        found.append(values["judge_loss"].item())
    assert found[-1] < 0.3 < found[0]


def test_until_its_start_it_counts_nothing_and_a_count_of_flops_brings_it_no_nearer():
    objective = objective_of(pixels={}, adversary={"width": 4, "layers": 2, "start_images": 2 * BATCH}).train()
    for step in range(4):
        count_flops(objective, toy_batch(BATCH))
        values = objective(toy_batch(BATCH))
        assert (values["judge_loss"] > 0) == (step >= 2)
        assert objective.terms["adversary"].seen == (step + 1) * BATCH
    objective.eval()(toy_batch(BATCH))
    assert objective.terms["adversary"].seen == 4 * BATCH


def test_its_rates_are_its_own():
    objective = objective_of(pixels={}, adversary={"lr": 1e-3})
    assert objective.own_rates() == {"terms.adversary.discriminator": {"lr": 1e-3, "betas": (0.5, 0.9)}}
    assert objective_of(pixels={}).own_rates() == {}


def saved(folder: Path) -> dict[str, Tensor]:
    last = max((folder / "checkpoints").iterdir())
    return {name: value for part in sorted(last.glob("*.safetensors")) for name, value in load_file(part).items()}


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("stop", [3, 8])
def test_a_run_stopped_before_or_after_its_start_ends_with_the_same_bits(stop: int, stage: int, tmp_path: Path):
    whole = train_pictures(tmp_path / "whole", zero_stage=stage)
    with pytest.raises(Preempted):
        train_pictures(tmp_path / "parts", stop, zero_stage=stage)
    parts = train_pictures(tmp_path / "parts", zero_stage=stage)
    one, two = saved(whole), saved(parts)
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert lines(whole) == lines(parts)
    assert [line["judge_loss"] > 0 for line in lines(whole)] == [False] * 5 + [True] * 7
