"""Groups of latents: each sees its own and earlier groups, what is drawn at once is drawn by the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig, SampleConfig, SeqGenerator
from ar_model.sampling import of_rows
from ar_model.sequences.base import Roles
from ar_model.sequences.cache import ReadOnce
from ar_model.sequences.scales import Scales, ScalesConfig, nearest
from ar_model.text.writing import CaptionConfig, write
from data_pipelines.captions.tokenizer import EOI
from seq_tokenizer.latents import LatentSpec
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

GROUPS = (1, 2, 3)
PROMPTS = ["a red circle", "a blue square above a red circle", "", "one shape"]
TEXT = torch.tensor([[11, 12, 13], [21, 0, 0], [31, 32, 0]])


def scales(**changes: object) -> SeqGenerator:
    return toy_generator(sequence={"kind": "scales", "groups": list(GROUPS), "caption_levels": 2}, **changes)


@torch.no_grad()
def sample_by_definition(
    model: SeqGenerator, prompts: list[str], config: SampleConfig, seed: int, kept: Tensor
) -> Tensor:
    """For every group the whole sequence read anew as in training, what is not known yet being anything at all."""
    text = model.encode_prompts(prompts)
    own = of_rows([repr([i for i in row if i]).encode() for row in text.tolist()], seed)
    draw, rows = model.head.sampler(config.temperature, config.flow), torch.ones(len(prompts), dtype=torch.bool)
    z = torch.cat([model.spec.normalise(kept), 9.0 + torch.zeros(len(prompts), LENGTH - kept.shape[1], DIM)], 1)
    for place in range(kept.shape[1], LENGTH):
        states = []
        for prompted in (rows, ~rows):
            slots = model.sequence.arrange(model.backbone, z, None, text, Roles(prompted), own)
            states.append(model.backbone(slots.x, slots.positions, slots.mask)[:, slots.latents][:, place])
        numbers = Draws(own.seed, own.epoch + (place << 48), own.index)
        z[:, place] = draw(*states, config.guidance, numbers, torch.full_like(own.index, place))
    return model.spec.denormalise(z)


@pytest.mark.parametrize("known", [0, 2, 3])
def test_drawing_a_group_at_once_is_the_definition(known: int) -> None:
    model = scales()
    config = SampleConfig().changed(guidance=2.5, temperature=0.9, flow={"steps": 3})
    kept = random_latents(4, seed=3)[:, :known]
    got = model.complete(kept, PROMPTS, config, seed=5) if known else model.sample(PROMPTS, config, seed=5)
    torch.testing.assert_close(got, sample_by_definition(model, PROMPTS, config, 5, kept), rtol=1e-3, atol=1e-3)
    assert (got[0] - got[1]).abs().max() > 0.1, "prompts must matter, or the law holds trivially"
    assert torch.equal(got[:, :known], kept)


def test_a_prefix_is_the_beginning_of_the_whole_and_a_row_its_own() -> None:
    model = scales()
    whole = model.sample(PROMPTS, seed=5)
    for tokens in (1, 2, 4):
        part = model.sample(PROMPTS, seed=5, num_tokens=tokens)
        torch.testing.assert_close(part, whole[:, :tokens], rtol=1e-4, atol=1e-4)
    alone = model.sample(PROMPTS[1:2], seed=5)
    torch.testing.assert_close(alone, whole[1:2], rtol=1e-4, atol=1e-4)
    assert (whole[:, 1] - whole[:, 2]).abs().min() > 1e-4, "latents of a group have noise of their own"


def test_a_slot_sees_its_group_and_earlier_ones_and_reads_the_group_before() -> None:
    """By gradient: of the slots, and of the latents."""
    model, z = scales(), random_latents(3).requires_grad_()
    yes = torch.ones(3, dtype=torch.bool)
    slots = model.sequence.arrange(model.backbone, z, None, TEXT, Roles(yes), Draws.alike(0, 3))
    h = model.backbone(slots.x, slots.positions, slots.mask)
    reached = []
    for place in range(LENGTH):
        grown = torch.autograd.grad(h[0, slots.latents][place].square().sum(), z, retain_graph=True)[0]
        reached.append((grown[0].abs().amax(-1) > 0).nonzero()[:, 0].tolist())
    assert reached == [[], [0], [0], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert model.sequence.parents() == [None, 0, 0, 1, 1, 2]


def test_cells_lie_under_cells() -> None:
    assert nearest(4, 9) == [0, 0, 1, 0, 0, 1, 2, 2, 3]
    assert nearest(2, 4) == [0, 0, 1, 1]
    for before, size in ((1, 5), (4, 16), (9, 16), (3, 7)):
        assert sorted(set(nearest(before, size))) == list(range(before)), "every latent is read"


def test_captions_see_the_whole_image() -> None:
    model, z = scales(), random_latents(3).requires_grad_()
    roles = Roles(torch.tensor([True, False, False]), torch.tensor([False, True, True]), torch.tensor([1, 1, 0]))
    slots, first = model.sequence.arrange(model.backbone, z, None, TEXT, roles, Draws.alike(0, 3)), ReadOnce()
    h = model.backbone(slots.x, slots.positions, slots.mask, first)
    assert slots.captions is not None
    written = slots.captions.states(model.backbone, first)
    grown = torch.autograd.grad(written[0, 0].square().sum(), z, retain_graph=True)[0].abs().amax(-1) > 0
    assert grown.sum(1).tolist() == [0, LENGTH, 0]
    grown = torch.autograd.grad(h[1, slots.latents].square().sum(), z)[0].abs().amax(-1) > 0
    assert grown[1].tolist() == [True] * 3 + [False] * 3, "no latent of the last group leads to an image"


@torch.no_grad()
def test_what_is_written_is_scored_as_it_was_written() -> None:
    model, latents = scales(), random_latents(3)
    z = model.spec.normalise(latents)
    writer = model.sequence.writer(model.backbone, z, 1, LENGTH, 8)
    found = write(writer, CaptionConfig(), Draws.alike(0, 3), 8)
    assert len(found) == 3
    assert all(EOI not in caption.ids for caption in found)
    scored_as_written(model, latents, ["a red circle", "one shape"])


@pytest.mark.parametrize("writer", ["shared", "own"])
def test_micro_batches_have_the_loss_of_the_whole_and_every_weight_learns(writer: str) -> None:
    config = GeneratorObjectiveConfig(text_to_image=0.6, input_noise=0.1, condition_dropout=0.3)
    model = GeneratorObjective(scales(writer=writer), config, latent_spec())
    pyramid = [["one shape", "a red circle"], ["a blue square"], ["one shape", "a blue square"], []] * 4
    z = random_latents(16)
    whole = model(toy_batch(pyramid, z))
    parts = [model(toy_batch(pyramid[i : i + 4], z[i : i + 4], first=i)) for i in range(0, 16, 4)]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts) / 4, value, rtol=1e-4, atol=1e-5)
    whole["loss"].backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    unused = ["generator.backbone.text_out.weight"] if writer == "own" else []
    assert still == unused
    assert model.muon_excluded() <= dict(model.named_parameters()).keys()


@pytest.mark.slow
def test_it_learns_what_the_groups_before_say() -> None:
    learns_a_coin_for_each_image(scales(), GeneratorObjectiveConfig(text_to_image=0.9), epochs=250)


@pytest.mark.parametrize(
    ("groups", "named", "message"),
    [
        ((), (), "names no groups; give sequence.groups"),
        ((1, 2), (), "3 latents, the tokenizer has 6"),
        ((3, 2, 1), (), "no group may be smaller"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: tuple[int, ...], named: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scales(ScalesConfig(groups=groups), 32, latent_spec())


def test_a_pyramid_names_its_groups() -> None:
    spec = latent_spec()
    spec = LatentSpec(spec.length, spec.dim, spec.mean, spec.std, spec.tokenizer_id, groups=GROUPS)
    assert Scales(ScalesConfig(), 32, spec).groups == GROUPS
