"""Noisy copies: each sees what the next token would, nobody sees one, and sampling is the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig, SampleConfig, SeqGenerator
from ar_model.sampling import of_rows
from ar_model.sequences.base import Roles
from ar_model.sequences.layout import attention_mask, prompt_block, slot_positions
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import (
    DIM,
    LENGTH,
    latent_spec,
    learns_a_coin_for_each_image,
    random_latents,
    toy_batch,
    toy_generator,
)

PROMPTS = ["a red circle", "a blue square above a red circle", "", "one shape"]
TEXT = torch.tensor([[11, 12, 13], [21, 0, 0], [31, 32, 0]])


def noisy_copies(**settings: object) -> SeqGenerator:
    return toy_generator(sequence={"kind": "noisy_copies", "copies": 2, **settings})


@torch.no_grad()
def sample_by_definition(
    model: SeqGenerator, prompts: list[str], config: SampleConfig, seed: int, kept: Tensor
) -> Tensor:
    """For every step of every token the whole sequence read anew, with one noisy latent at its end."""
    text = model.encode_prompts(prompts)
    own = of_rows([repr([i for i in row if i]).encode() for row in text.tolist()], seed)
    z, known = model.spec.normalise(kept), kept.shape[1]

    for place in range(known, LENGTH):

        def velocity(x_t: Tensor, at: int, z: Tensor = z, place: int = place) -> Tensor:
            t = torch.full((len(prompts), 1), at / config.flow.steps)
            both = []
            for keep in (True, False):
                ids, valid = prompt_block(text, torch.full((len(prompts),), keep))
                untold = None
                if not keep and model.sequence.prefix_dropout:
                    untold = (torch.arange(z.shape[1]) < known).expand(z.shape[:2])
                parts = [model.backbone.embed_text(ids), model.backbone.embed_latents(z, 0, untold)]
                x = torch.cat([*parts, model.sequence.embed(model.backbone, x_t[:, None], t, place)], 1)
                positions = slot_positions(ids.shape[1], x.shape[1])
                whole = torch.cat([valid, torch.ones(len(z), place + 1, dtype=torch.bool)], 1)
                h = model.backbone(x, positions, attention_mask(whole, positions))
                both.append(model.sequence.denoiser.velocity(h[:, -1:], x_t[:, None], t)[:, 0])
            return both[1] + config.guidance * (both[0] - both[1])

        start = config.temperature * own.normal(f"sample/{place}", (DIM,))
        drawn = flow.SOLVERS[config.flow.solver](velocity, start, flow.time_grid(config.flow.steps))
        z = torch.cat([z, drawn[:, None]], 1)
    return model.spec.denormalise(z)


@pytest.mark.parametrize("solver", ["euler", "heun", "adams_bashforth"])
@pytest.mark.parametrize(("known", "dropout"), [(0, 0.0), (2, 0.0), (2, 0.5)])
def test_cached_sampling_is_the_definition(solver: str, known: int, dropout: float) -> None:
    model = noisy_copies(prefix_dropout=dropout)
    config = SampleConfig().changed(guidance=2.5, temperature=0.9, flow={"steps": 3, "solver": solver})
    kept = random_latents(4, seed=3)[:, :known]
    got = model.complete(kept, PROMPTS, config, seed=5) if known else model.sample(PROMPTS, config, seed=5)
    torch.testing.assert_close(got, sample_by_definition(model, PROMPTS, config, 5, kept), rtol=1e-3, atol=1e-3)
    assert (got[0] - got[1]).abs().max() > 0.1, "prompts must matter, or the law holds trivially"
    if not known:
        part = model.sample(PROMPTS, config, seed=5, num_tokens=3)
        torch.testing.assert_close(part, got[:, :3], rtol=1e-3, atol=1e-4)


def test_a_copy_sees_what_leads_to_its_latent_and_nobody_sees_a_copy() -> None:
    model = noisy_copies()
    roles = Roles(torch.tensor([True, True, False]), torch.tensor([False, False, True]))
    slots = model.sequence.arrange(model.backbone, random_latents(3), None, TEXT, roles, Draws.alike(0, 3))
    x = slots.x.detach().requires_grad_()
    h = model.backbone(x, slots.positions, slots.mask)
    first, whole = slots.latents.start, slots.x.shape[1]
    copies = range(whole - 2 * LENGTH, whole)
    for slot in range(whole):
        grown = torch.autograd.grad(h[:, slot].square().sum(), x, retain_graph=True)[0].abs().amax(-1) > 0
        for row in range(3):
            seen = set(grown[row].nonzero()[:, 0].tolist())
            if slot not in copies:
                assert not seen & set(copies)
                continue
            lead = first + (slot - copies.start) % LENGTH
            other = torch.autograd.grad(h[row, lead].square().sum(), x, retain_graph=True)[0][row].abs().amax(-1)
            assert seen == {*(other > 0).nonzero()[:, 0].tolist(), slot}


def test_micro_batches_have_the_loss_of_the_whole_and_every_weight_learns() -> None:
    config = GeneratorObjectiveConfig(text_to_image=0.6, input_noise=0.1, condition_dropout=0.3)
    model = GeneratorObjective(noisy_copies(caption_levels=2, prefix_dropout=0.3), config, latent_spec())
    pyramid = [["one shape", "a red circle"], ["a blue square"], ["one shape", "a blue square"], []] * 4
    z = random_latents(16)
    whole = model(toy_batch(pyramid, z))
    parts = [model(toy_batch(pyramid[i : i + 4], z[i : i + 4], first=i)) for i in range(0, 16, 4)]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts) / 4, value, rtol=1e-4, atol=1e-5)
    whole["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert model.muon_excluded() <= dict(model.named_parameters()).keys()
    assert model.generator.caption(z[:2]) == model.generator.caption(z[:2])


@pytest.mark.slow
def test_it_learns_a_law_whose_latents_depend_on_each_other() -> None:
    learns_a_coin_for_each_image(noisy_copies(), GeneratorObjectiveConfig(), epochs=200)
