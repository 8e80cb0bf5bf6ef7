"""Short prefixes agree with the whole, and the whole does not bend."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seq_tokenizer.losses.agreement import AgreementConfig, AgreementTerm
from seq_tokenizer.losses.base import View
from seqtok_core.foundation.errors import ConfigError
from tests.seq_tokenizer.losses.reached import losses_of_training, objective_of, parts_reached
from tests.seq_tokenizer.toy import toy_batch, toy_pixels, toy_tokenizer


def view_of(prefix: list[int]) -> tuple[View, torch.Tensor]:
    """Three images, two patches, four latents of width 5; the states are leaves."""
    states = torch.randn(6, 6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    inside = {"decoder patches": states[:, :2], "decoder latents": states[:, 2:]}
    nothing: dict = dict.fromkeys(("batch", "pixels", "latents", "pictures", "draws", "tokenizer"))
    return View(prefix=torch.tensor(prefix), inside=inside, **nothing), states


def test_it_is_the_angle_between_the_states_and_only_the_short_side_learns():
    view, states = view_of([1, 3, 4])
    loss, _ = AgreementTerm(AgreementConfig(), None)(view)
    loss.backward()
    angles = []
    for row, k in enumerate((1, 3, 4)):
        short = [states[row, 2 : 2 + k].mean(0), *states[row, :2]]
        whole = [states[row + 3, 2:].mean(0), *states[row + 3, :2]]
        angles += [(a @ b) / (a.norm() * b.norm()) for a, b in zip(short, whole, strict=True)]
    torch.testing.assert_close(loss, 1 - torch.stack(angles).mean())
    assert states.grad[:3].any()
    assert not states.grad[3:].any()
    assert not states.grad[0, 3:].any()  # latents beyond the prefix


def test_equal_states_agree():
    view, _ = view_of([4, 4, 4])
    same = {name: state[:3].repeat(2, 1, 1) for name, state in view.inside.items()}
    loss, _ = AgreementTerm(AgreementConfig(), None)(replace(view, inside=same))
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)


def test_it_reaches_what_comes_before_the_second_layer():
    objective = objective_of(agreement={})
    assert parts_reached(objective) == {"encoder", "bottleneck", "decoder"}
    untouched = [*objective.tokenizer.decoder.blocks[1].parameters(), *objective.tokenizer.decoder.pixels.parameters()]
    assert not any(p.grad is not None and p.grad.any() for p in untouched)


def test_a_decoder_of_one_layer_has_no_such_state():
    objective = objective_of(agreement={})
    objective.tokenizer.decoder.blocks = objective.tokenizer.decoder.blocks[1:]
    with pytest.raises(ConfigError, match="`agreement` needs decoder patches"):
        objective(toy_batch())


def test_asking_for_states_changes_no_picture():
    model, states = toy_tokenizer(), {}
    z = model.encode(toy_pixels())
    assert torch.equal(model.decode(z, 2, states=states), model.decode(z, 2))
    assert states["decoder patches"].shape == (3, 16, 32)
    assert states["decoder latents"].shape == (3, 6, 32)


def test_it_learns():
    torch.manual_seed(0)
    losses = losses_of_training(objective_of(agreement={}, pixels={}), 20)
    assert losses[-1] < losses[0]
