"""Hidden states of pictures: who sees whom, and that they are those of training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ar_model import SeqGenerator
from ar_model.sequences.base import Roles
from ar_model.sequences.reading import hidden_states
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import DIM, LENGTH, random_latents, toy_generator

GROUPS = [1, 2, 3]
VARIANTS = {
    "next_token": {"kind": "next_token"},
    "noisy_copies": {"kind": "noisy_copies", "copies": 2},
    "full_image": {"kind": "full_image"},
    "scales": {"kind": "scales", "groups": GROUPS},
}
GROUP_OF = [0, 1, 1, 2, 2, 2]  # of each latent
each_variant = pytest.mark.parametrize("kind", VARIANTS)


def variant(kind: str, **changes: object) -> SeqGenerator:
    return toy_generator(sequence=VARIANTS[kind], **changes)


def sees(kind: str, state: int, latent: int) -> bool:
    if kind == "full_image":
        return True
    return GROUP_OF[latent] <= GROUP_OF[state] if kind == "scales" else latent <= state


@each_variant
def test_a_state_depends_on_what_it_may_see_and_on_nothing_else(kind: str) -> None:
    """By gradient, after every block."""
    model = variant(kind, depth=3)
    z = random_latents(2).requires_grad_()
    states = hidden_states(model.backbone, model.sequence.read(model.backbone, z))
    assert states.shape == (3, 2, LENGTH, 32)
    for state in range(LENGTH):
        (gradient,) = torch.autograd.grad(states[-1, 0, state].square().sum(), z, retain_graph=True)
        seen = gradient[0].abs().sum(1) > 0
        assert seen.tolist() == [sees(kind, state, latent) for latent in range(LENGTH)]
        assert not gradient[1].any(), "nobody sees another picture"
    last = states[-1, 0, -1].square().sum()
    assert torch.autograd.grad(last, z)[0][0].any()


@torch.no_grad()
@each_variant
def test_a_picture_has_the_same_states_in_any_company(kind: str) -> None:
    model, latents = variant(kind), random_latents(7)
    states = model.states(latents)
    other = model.states(latents.flip(0), batch=2)
    torch.testing.assert_close(other, states.flip(1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(states[:, 0], states[:, 1], atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("writer", ["shared", "own"])
@each_variant
def test_states_are_those_of_a_training_step_that_writes(kind: str, writer: str) -> None:
    """The rows that write read the image without a prompt: what their caption sees is what is looked into."""
    model, latents = variant(kind, writer=writer), random_latents(3)
    z, rows = model.spec.normalise(latents), torch.ones(3, dtype=torch.bool)
    text = torch.tensor([[11, 12, 13], [21, 0, 0], [31, 32, 0]])
    slots = model.sequence.arrange(model.backbone, z, None, text, Roles(~rows, rows), Draws.alike(0, 3))
    blocks: list[Tensor] = []
    trained = model.backbone(slots.x, slots.positions, slots.mask, kept=blocks)
    torch.testing.assert_close(model.backbone.norm_out(blocks[-1]), trained)
    first = slots.prompt[0].stop + 1  # of the image, behind the prompt
    for own, block in zip(model.states(latents), blocks, strict=True):
        torch.testing.assert_close(own, of_latents(kind, block[:, first:]), rtol=1e-4, atol=1e-5)


def of_latents(kind: str, image: Tensor) -> Tensor:
    """image (B, n, W), its slots in training -> (B, K, W). By the definition for groups of 1, 2 and 3: z_1 is read by
    both slots of the second group, z_2 by two of the third and z_3 by its last, the third group by what follows."""
    if kind != "scales":
        return image[:, :LENGTH]
    first = [image[:, 1:3].mean(1), image[:, 3:5].mean(1), image[:, 5]]
    return torch.cat([torch.stack(first, 1), image[:, 6:9]], 1)


@pytest.mark.parametrize("shape", [(2, LENGTH - 1, DIM), (2, LENGTH, DIM + 1), (LENGTH, DIM)])
def test_other_latents_are_refused_in_one_message(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"latents of shape .*: \(B, k, {DIM}\) with k = {LENGTH} are read"):
        variant("next_token").states(torch.zeros(shape))
