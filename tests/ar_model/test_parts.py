"""The parts of a sequence model: each kind has a class, sizes by name, and one owner of the sampling defaults."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
import torch

from ar_model import GeneratorConfig, GeneratorObjective, GeneratorObjectiveConfig, SampleConfig, SeqGenerator
from ar_model.card import parameter_count
from ar_model.config import PRESETS
from ar_model.heads import build as heads
from ar_model.sequences import build as sequences
from ar_model.sequences.base import Roles
from ar_model.sequences.next_token import NextToken, NextTokenConfig
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.config import models_in
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import CAPTIONS, DIM, LENGTH, generator_config, random_latents, toy_batch, toy_generator, words
from tests.ar_model.toy import latent_spec as spec

PARTS = {
    "head": (heads.HeadConfig, heads.HEADS),
    "sequence": (sequences.SequenceConfig, sequences.SEQUENCES),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_kind_has_its_class(part: str):
    config, classes = PARTS[part]
    assert [get_args(member.model_fields["kind"].annotation)[0] for member in models_in(config)] == list(classes)


def test_every_head_has_its_part_of_the_sampling_settings():
    assert list(heads.HeadSampleConfig.model_fields) == list(heads.HEADS)
    assert all(head.kind == kind for kind, head in heads.HEADS.items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": {"kind": "flwo"}}, r"head\.kind='flwo': did you mean flow\?"),
        ({"sequence": {"kind": "next_tokens"}}, r"sequence\.kind='next_tokens': did you mean next_token\?"),
        ({"head": {"widht": 8}}, r"unknown key head\.widht; did you mean head\.width\?"),
        ({"preset": "XXXL"}, r"preset='XXXL': did you mean XXL\?"),
    ],
)
def test_a_wrong_word_names_the_nearest(values: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        GeneratorConfig.parse(values)


def test_sampling_defaults_have_one_owner():
    parameters = inspect.signature(SeqGenerator.sample).parameters
    assert not set(SampleConfig.model_fields) & set(parameters)
    model, config = toy_generator(), SampleConfig().changed(guidance=2.0, temperature=0.5, flow={"steps": 3})
    whole = model.sample(["a red circle"], config)
    single = model.sample(["a red circle"], guidance=2.0, temperature=0.5, flow={"steps": 3})
    assert torch.equal(whole, single)
    assert torch.equal(model.sample(["a red circle"], SampleConfig()), model.sample(["a red circle"]))
    changed = model.sample(["a red circle"], config.changed(temperature=1.0), temperature=0.5)
    assert torch.equal(changed, whole)


def test_a_change_keeps_the_rest_and_a_wrong_one_names_the_nearest():
    config = SampleConfig().changed(flow={"solver": "heun"}).changed(flow={"steps": 3}, guidance=1.0)
    assert (config.flow.solver, config.flow.steps, config.guided) == ("heun", 3, False)
    with pytest.raises(ConfigError, match="unknown key guidence; did you mean guidance"):
        toy_generator().sample(["a red circle"], guidence=2.0)
    with pytest.raises(ConfigError, match=r"unknown key steps; did you mean flow\.steps"):
        toy_generator().sample(["a red circle"], steps=2)


NUMBERS = Draws.alike(0, 2)


class Backwards(NextToken):
    """A toy: the latents stand in the sequence from the last to the first."""

    def arrange(self, backbone, z, noise, text_ids, roles, draws):
        return super().arrange(backbone, z.flip(1), noise, text_ids, roles, draws)

    def draw(self, backbone, head, text_ids, draws, config, length, tokens, given=None):
        return reversed(list(super().draw(backbone, head, text_ids, draws, config, length, length))[-tokens:])


def test_a_new_sequence_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sequences.SEQUENCES, "next_token", Backwards)
    model = SeqGenerator(generator_config(), spec(), words())
    assert isinstance(model.sequence, Backwards)
    batch = toy_batch([[CAPTIONS[1]]] * 4, random_latents(4))
    losses = GeneratorObjective(model, GeneratorObjectiveConfig(text_to_image=0.5), spec())(batch)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert model.sample(["a red circle"], num_tokens=2).shape == (1, 2, DIM)


def test_a_sequence_says_which_states_lead_to_what():
    backbone, text = toy_generator().backbone, torch.tensor([[11, 12, 0], [13, 0, 0]])
    yes = torch.ones(2, dtype=torch.bool)
    z = random_latents(2)
    slots = NextToken(NextTokenConfig(), 32, spec()).arrange(backbone, z, None, text, Roles(~yes, yes), NUMBERS)
    states = torch.arange(slots.x.shape[1])
    assert len(states[slots.latents]) == LENGTH
    rows, targets = slots.prompt
    assert targets.shape == (2, len(states[rows]))
    assert slots.captions is not None
    assert slots.captions.x.shape[:2] == slots.captions.slots.targets.shape
    without = NextToken(NextTokenConfig(), 32, spec()).arrange(backbone, z, None, text, Roles(yes), NUMBERS)
    assert without.captions is None
    assert without.x.shape[1] == int(without.latents.stop)


def test_input_noise_is_read_and_no_target():
    backbone, z, text = toy_generator().backbone, random_latents(2), torch.tensor([[11, 12], [13, 0]])
    yes, noise = torch.ones(2, dtype=torch.bool), random_latents(2, seed=1)
    variant = NextToken(NextTokenConfig(), 32, spec())
    for roles in (Roles(~yes, yes), Roles(yes)):
        noisy, added = (
            variant.arrange(backbone, *pair, text, roles, NUMBERS) for pair in ((z, noise), (z + noise, None))
        )
        torch.testing.assert_close(noisy.x, added.x)
        assert not torch.equal(noisy.x, variant.arrange(backbone, z, None, text, roles, NUMBERS).x)


def test_hidden_latents_are_not_told():
    backbone, z, text = toy_generator().backbone, random_latents(2), torch.tensor([[11, 12], [13, 0]])
    no, hidden = torch.zeros(2, dtype=torch.bool), torch.tensor([0, 2])
    variant = NextToken(NextTokenConfig(), 32, spec())
    slots = variant.arrange(backbone, z, None, text, Roles(no, hidden=hidden), NUMBERS)
    other = z.clone()
    other[1, :2] += 1.0
    assert torch.equal(variant.arrange(backbone, other, None, text, Roles(no, hidden=hidden), NUMBERS).x, slots.x)
    plain = variant.arrange(backbone, z, None, text, Roles(no), NUMBERS)
    assert torch.equal(slots.x[0], plain.x[0])
    first = slots.latents.start + 1
    assert torch.equal(slots.x[1, first + 2 :], plain.x[1, first + 2 :])
    assert (slots.x[1, first : first + 2] - plain.x[1, first : first + 2]).abs().amin(0).max() > 0.01


def test_captions_are_written_from_prefixes_and_at_their_level(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[bool, int, int]] = []

    class Recorder(NextToken):
        def arrange(self, backbone, z, noise, text_ids, roles, draws):
            seen.extend(zip(roles.writes.tolist(), roles.told.tolist(), roles.level.tolist(), strict=True))
            return super().arrange(backbone, z, noise, text_ids, roles, draws)

    monkeypatch.setitem(sequences.SEQUENCES, "next_token", Recorder)
    sequence = {"caption_prefixes": 0.5, "caption_levels": 2}
    model = SeqGenerator(generator_config(sequence=sequence), spec(), words())
    batch = toy_batch([[CAPTIONS[0], CAPTIONS[1]]] * 399 + [[]], random_latents(400))
    config = GeneratorObjectiveConfig(text_to_image=0.5, finest_share=0.7)
    GeneratorObjective(model, config, spec())(batch)
    assert {min(told, LENGTH) for _, told, _ in seen} == set(range(1, LENGTH + 1))
    assert sum(told < LENGTH for _, told, _ in seen) / len(seen) == pytest.approx(0.5, abs=0.1)
    assert sum(level == 1 for *_, level in seen) / len(seen) == pytest.approx(0.7, abs=0.08)
    assert sum(writes for writes, *_ in seen) / len(seen) == pytest.approx(0.5, abs=0.1)
    assert seen[-1][0] is False, "a picture without a caption writes none"
    assert seen[-1][2] == -1
    with pytest.raises(ConfigError, match="captions of 3 levels; raise caption_levels=2"):
        GeneratorObjective(model, config, spec())(toy_batch([CAPTIONS[:3]], random_latents(1)))
    with pytest.raises(ConfigError, match="no caption is ever written"):
        GeneratorObjective(model, GeneratorObjectiveConfig(), spec())


def test_prefixes_are_hidden_in_samples_without_a_prompt(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[bool, int]] = []

    class Recorder(NextToken):
        def arrange(self, backbone, z, noise, text_ids, roles, draws):
            seen.extend(zip(roles.prompted.tolist(), roles.hidden.tolist(), strict=True))
            return super().arrange(backbone, z, noise, text_ids, roles, draws)

    monkeypatch.setitem(sequences.SEQUENCES, "next_token", Recorder)
    model = SeqGenerator(generator_config(sequence={"prefix_dropout": 0.5}), spec(), words())
    batch = toy_batch([[CAPTIONS[1]]] * 400, random_latents(400))
    GeneratorObjective(model, GeneratorObjectiveConfig(condition_dropout=0.5), spec())(batch)
    assert all(not hidden for prompted, hidden in seen if prompted)
    free = [hidden for prompted, hidden in seen if not prompted]
    assert sum(hidden > 0 for hidden in free) / len(free) == pytest.approx(0.5, abs=0.12)
    assert {hidden for hidden in free if hidden} == set(range(1, LENGTH))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_sizes_that_they_promise(preset: str):
    config, sizes = GeneratorConfig.parse({"preset": preset, "head": {"repeats": 2}}), PRESETS[preset]
    assert (config.width, config.depth, config.heads) == (sizes["width"], sizes["depth"], sizes["heads"])
    assert (config.head.width, config.head.depth, config.head.repeats) == (*list(sizes["head"].values())[1:], 2)
    width, head = config.width, config.head
    blocks = 12 * width**2 * config.depth  # attention 4 W^2, MLP 8 W^2
    flow_head = 2 * head.depth * head.width**2 + (3 * head.depth + 2) * head.width * (width + head.width)
    count = parameter_count(config, 4096, LatentSpec(64, 16, torch.zeros(64, 16), torch.ones(64, 16), "aaaa"))
    assert count == pytest.approx(blocks + flow_head + 2 * 4096 * width, rel=0.03)


def test_the_count_is_that_of_the_real_model():
    model = toy_generator()
    count = parameter_count(model.config, model.captions.vocab_size, model.spec)
    assert count == sum(parameter.numel() for parameter in model.parameters())
