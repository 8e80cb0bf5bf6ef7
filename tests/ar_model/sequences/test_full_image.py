"""The image as one block: its sampling is the definition, its latents see each other and no caption."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig, SampleConfig, SeqGenerator
from ar_model.heads.base import NoHead
from ar_model.sampling import of_rows
from ar_model.sequences.base import Roles
from ar_model.sequences.cache import ReadOnce
from ar_model.sequences.layout import prompt_block
from ar_model.text.writing import CaptionConfig, write
from data_pipelines.captions.tokenizer import EOI
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import (
    DIM,
    LENGTH,
    latent_spec,
    learns_a_coin_for_each_image,
    random_latents,
    scored_as_written,
    toy_batch,
    toy_generator,
)

PROMPTS = ["a red circle", "a blue square above a red circle", "", "one shape"]
TEXT = torch.tensor([[11, 12, 13], [21, 0, 0], [31, 32, 0]])


def full_image(**settings: object) -> SeqGenerator:
    return toy_generator(sequence={"kind": "full_image", "caption_levels": 2, "caption_prefixes": 0.5, **settings})


@torch.no_grad()
def sample_by_definition(
    model: SeqGenerator, prompts: list[str], config: SampleConfig, seed: int, kept: Tensor
) -> Tensor:
    """Euler's steps, every one of which reads the whole sequence anew, without and with the prompt."""
    text = model.encode_prompts(prompts)
    own = of_rows([repr([i for i in row if i]).encode() for row in text.tolist()], seed)
    noise = torch.stack([own.normal(f"sample/{i}", (DIM,)) for i in range(LENGTH)], 1) * config.temperature
    z = torch.cat([model.spec.normalise(kept), noise[:, kept.shape[1] :]], 1)
    steps, stagger = config.flow.steps, model.sequence.config.stagger

    def at(step: int, place: int) -> float:
        u = step / steps
        if place < kept.shape[1]:
            return 1.0
        return min(max((1 + stagger) * u - stagger * place / (LENGTH - 1), 0.0), 1.0)

    for step in range(steps):
        t = torch.tensor([at(step, i) for i in range(LENGTH)]).expand(len(z), -1)
        velocities = []
        for keep in (True, False):
            ids, valid = prompt_block(text, torch.full((len(z),), keep))
            x = torch.cat([model.backbone.embed_text(ids), model.sequence.embed(model.backbone, z, t)], 1)
            slots, whole = ids.shape[1], x.shape[1]
            mask = torch.eye(whole, dtype=torch.bool).repeat(len(z), 1, 1)
            mask[:, :slots, :slots] |= torch.ones(slots, slots, dtype=torch.bool).tril() & valid[:, None]
            mask[:, slots:, :slots] |= valid[:, None]
            mask[:, slots:, slots:] = True
            h = model.backbone(x, torch.arange(whole) - (slots - 1), mask[:, None])
            velocities.append(model.sequence.denoiser.velocity(h[:, slots:], z, t))
        scale = torch.tensor([config.guidance] * LENGTH)
        if config.schedule == "linear":
            scale = 1 + (config.guidance - 1) * torch.arange(LENGTH) / (LENGTH - 1)
        v = velocities[1] + scale[:, None] * (velocities[0] - velocities[1])
        change = torch.tensor([at(step + 1, i) - at(step, i) for i in range(LENGTH)])
        z = z + change[:, None] * v
    return model.spec.denormalise(z)


@pytest.mark.parametrize(("stagger", "schedule"), [(0.0, "constant"), (2.0, "linear")])
@pytest.mark.parametrize("known", [0, 2])
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_cached_sampling_is_the_definition(stagger: float, schedule: str, known: int, prediction: str) -> None:
    model = full_image(stagger=stagger, prediction=prediction)
    config = SampleConfig().changed(
        guidance=2.5, schedule=schedule, temperature=0.9, flow={"steps": 4, "solver": "euler"}
    )
    kept = random_latents(4, seed=3)[:, :known]
    got = model.complete(kept, PROMPTS, config, seed=5) if known else model.sample(PROMPTS, config, seed=5)
    torch.testing.assert_close(got, sample_by_definition(model, PROMPTS, config, 5, kept), rtol=1e-3, atol=1e-3)
    assert torch.equal(got[:, :known], kept)
    assert (got[0] - got[1]).abs().max() > 0.1, "prompts must matter, or the law holds trivially"


def test_guidance_of_one_is_none_and_a_sample_its_own() -> None:
    model = full_image()
    four = {"steps": 4, "solver": "euler"}
    plain = model.sample(PROMPTS, guidance=1.0, flow=four)
    expected = sample_by_definition(model, PROMPTS, SampleConfig(guidance=1.0).changed(flow=four), 0, plain[:, :0])
    torch.testing.assert_close(plain, expected, rtol=1e-3, atol=1e-4)
    for i, prompt in enumerate(PROMPTS):
        alone = model.sample([prompt], guidance=1.0, flow=four)
        torch.testing.assert_close(alone[0], plain[i], rtol=1e-3, atol=1e-4)
    assert torch.equal(model.sample(PROMPTS, guidance=1.0, flow=four), plain)
    part = model.sample(PROMPTS, guidance=1.0, flow=four, num_tokens=2)
    torch.testing.assert_close(part, plain[:, :2])
    heun = model.sample(PROMPTS, guidance=1.0, flow={"steps": 4, "solver": "heun"})
    assert (heun - plain).abs().max() > 1e-3


def test_a_large_stagger_is_one_latent_after_the_other() -> None:
    model = full_image(stagger=float(LENGTH))
    t = model.sequence.times(torch.linspace(0, 1, 200), LENGTH)
    moving = ((t > 0) & (t < 1)).sum(1)
    assert int(moving.max()) == 1
    assert torch.equal(t[0], torch.zeros(LENGTH))
    assert torch.equal(t[-1], torch.ones(LENGTH))
    assert bool((t[:, :-1] >= t[:, 1:]).all()), "the first are never noisier than the last"
    together = full_image().sequence.times(torch.tensor([0.3]), LENGTH)
    assert torch.equal(together, torch.full((1, LENGTH), 0.3))


def test_latents_see_each_other_and_no_caption_and_captions_what_they_are_told() -> None:
    """By gradient, of a prompted, a writing and a writing row that is told two latents."""
    model = full_image(given=0.0)
    roles = Roles(
        torch.tensor([True, False, False]),
        torch.tensor([False, True, True]),
        torch.tensor([1, 1, 0]),
        told=torch.tensor([LENGTH, LENGTH, 2]),
    )
    slots = model.sequence.arrange(model.backbone, random_latents(3), None, TEXT, roles, Draws.alike(0, 3))
    x, first = slots.x.detach().requires_grad_(), ReadOnce()
    h = model.backbone(x, slots.positions, slots.mask, first)
    image, front, captions = slots.latents, slots.latents.start, slots.captions
    assert captions is not None
    written = captions.states(model.backbone, first)

    def seen(row: int, slot: int, states: Tensor = h, source: int | None = None) -> list[int]:
        grown = torch.autograd.grad(states[row, slot].square().sum(), x, retain_graph=True)[0]
        return (grown[row if source is None else source].abs().amax(-1) > 0).nonzero()[:, 0].tolist()

    block = list(range(image.start, image.stop))
    assert seen(0, front)[-LENGTH:] == block
    assert all(slot < front for slot in seen(0, front - 1)), "a prompt does not see the image"
    assert seen(1, front) == [front - 2, front - 1, *block], "<bos>, <boi> and the image, no caption"
    assert captions.slots.rows.tolist()[:2] == [1, 2]
    assert seen(0, 1, written, 1) == [front - 2, front - 1, *block]
    assert seen(1, 1, written, 2) == [front - 2, front - 1, *block[:2]]
    assert seen(2, front) == [front - 2, front - 1, *block[:2]]


@torch.no_grad()
@pytest.mark.parametrize("known", [2, LENGTH])
def test_what_is_written_is_scored_as_it_was_written(known: int) -> None:
    model, latents = full_image(), random_latents(3)
    z = model.spec.normalise(latents[:, :known])
    writer = model.sequence.writer(model.backbone, z, 1, LENGTH, 8)
    found = write(writer, CaptionConfig(), Draws.alike(0, 3), 8)
    scored_as_written(model, latents[:, :known], ["a red circle", "one shape"])
    assert len(found) == 3
    assert EOI not in found[0].ids
    assert len(model.caption(latents[:, :known], level="coarse")) == 3


def test_micro_batches_have_the_loss_of_the_whole_and_every_weight_learns() -> None:
    config = GeneratorObjectiveConfig(text_to_image=0.6, input_noise=0.1, condition_dropout=0.3)
    model = GeneratorObjective(full_image(), config, latent_spec())
    assert isinstance(model.generator.head, NoHead)
    pyramid = [["one shape", "a red circle"], ["a blue square"], ["one shape", "a blue square"], []] * 4
    z = random_latents(16)
    whole = model(toy_batch(pyramid, z))
    parts = [model(toy_batch(pyramid[i : i + 4], z[i : i + 4], first=i)) for i in range(0, 16, 4)]
    assert set(whole) == {"loss", "flow_loss", "text_loss"}
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts) / 4, value, rtol=1e-4, atol=1e-5)
    whole["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert model.muon_excluded() <= dict(model.named_parameters()).keys()


def test_what_is_given_or_described_has_no_loss() -> None:
    model, z = full_image(given=1.0).sequence, random_latents(64)
    backbone, yes = toy_generator().backbone, torch.ones(64, dtype=torch.bool)
    text = TEXT[:1].expand(64, -1)
    draws = Draws(0, torch.zeros(64, dtype=torch.int64), torch.arange(64))
    slots = model.arrange(backbone, z, None, text, Roles(yes), draws)
    loss = slots.loss(backbone(slots.x, slots.positions, slots.mask))
    known = (loss == 0).sum(1)
    assert set(known.tolist()) == set(range(LENGTH)), "any number of latents but all may be given"
    assert bool((loss[:, -1] > 0).all())
    slots = model.arrange(backbone, z, None, text, Roles(~yes, yes), draws)
    assert not bool(slots.loss(backbone(slots.x, slots.positions, slots.mask)).any())


@pytest.mark.slow
def test_it_learns_a_law_whose_latents_depend_on_each_other() -> None:
    learns_a_coin_for_each_image(full_image(given=0.0), GeneratorObjectiveConfig(text_to_image=0.9), epochs=250)


def test_a_head_that_nobody_asks_is_not_made() -> None:
    assert not list(full_image().head.parameters())
    with pytest.raises(ConfigError, match="did you mean full_image"):
        toy_generator(sequence={"kind": "full_imge"})
