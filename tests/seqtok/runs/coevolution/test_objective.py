"""Laws of training together: who moves whom, what never moves, and what is seen of a collapse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig
from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seqtok.runs.coevolution.objective import CoevolutionConfig, CoevolutionObjective, follow, spread_rank
from seqtok_core.foundation.errors import ConfigError
from tests.ar_model.toy import toy_generator
from tests.seq_tokenizer.toy import toy_batch, toy_tokenizer

QUIET = {"pixels": {"weight": 0.0}, "contrast": None}


def together(tokenizer: dict[str, Any] | None = None, **settings: Any) -> CoevolutionObjective:
    """Six latents of three channels, read by a toy sequence model."""
    config = CoevolutionConfig.parse({"tokenizer": tokenizer or {}, **settings}, "test")
    first = TokenizerObjective(toy_tokenizer(text=False), config.tokenizer)
    generator = toy_generator()
    return CoevolutionObjective(first, GeneratorObjective(generator, config.generator, generator.spec), config).train()


def encoder_gradient(model: CoevolutionObjective) -> Tensor:
    model.zero_grad()
    model(toy_batch())["loss"].backward()
    own = [p for p in model.tokenizer.tokenizer.encoder.parameters() if p.requires_grad]
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in own])


def test_the_sequence_reaches_the_encoder_by_its_share():
    """The tokenizer itself learns nothing here: what arrives comes from the sequence model, and all of it through the
    latents that are read: a target that moved would send its part at any share."""
    none, half, whole = (encoder_gradient(together(QUIET, reach=reach)) for reach in (0.0, 0.5, 1.0))
    assert not none.any()
    assert whole.abs().sum() > 0
    torch.testing.assert_close(half, whole / 2, rtol=1e-4, atol=1e-7)


def test_without_reach_each_learns_as_if_alone():
    model = together()
    alone = TokenizerObjective(toy_tokenizer(text=False), TokenizerTrainingConfig())
    alone(toy_batch())["loss"].backward()
    encoder_gradient(model)
    for (name, ours), theirs in zip(
        model.tokenizer.tokenizer.named_parameters(), alone.tokenizer.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_what_the_sequence_expects_is_decoded_and_reaches_both():
    model = together(QUIET, reach=1.0, decoded_weight=1.0, sequence_weight=0.0)
    gradient = encoder_gradient(model)
    assert gradient.abs().sum() > 0
    backbone = model.generator.generator.backbone.token_in.weight.grad
    decoder = [p.grad for p in model.tokenizer.tokenizer.decoder.parameters() if p.grad is not None]
    assert backbone is not None
    assert backbone.any()
    assert any(grad.any() for grad in decoder)


class CleanLook:
    """Draws of times at the very end of the flow, where nothing is noisy."""

    def uniform(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.full((8, *shape), 1.0 - 1e-7)

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(8, *shape)


def test_a_look_without_noise_expects_the_latent_itself():
    head, z = toy_generator().head, torch.randn(8, 6, 3)
    expected = head.estimate(torch.randn(8, 6, 32), z, CleanLook())  # type: ignore[operator]
    torch.testing.assert_close(expected, z, atol=0.05, rtol=0.05)


def test_statistics_follow_the_latents_and_only_in_training():
    model = together(memory=0.8)
    tokenizer = model.tokenizer.tokenizer
    for _ in range(40):
        model(toy_batch())
    latents = tokenizer.encode(toy_batch().pixels())
    torch.testing.assert_close(tokenizer.latent_mean, latents.mean(0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(tokenizer.latent_std, latents.std(0, correction=0), atol=1e-2, rtol=1e-2)
    before = tokenizer.latent_mean.clone()
    model.eval()(toy_batch(first=8))
    assert torch.equal(tokenizer.latent_mean, before)


def test_statistics_keep_of_the_older_ones_what_memory_says():
    tokenizer = toy_tokenizer(text=False)  # mean 0, std 1 before it has seen any
    latents = 3.0 + torch.randn(8, 6, 3, generator=torch.Generator().manual_seed(0))
    follow(tokenizer, latents, 0.75)
    torch.testing.assert_close(tokenizer.latent_mean, 0.25 * latents.mean(0))
    variance = 0.75 + 0.25 * latents.var(0, correction=0)
    torch.testing.assert_close(tokenizer.latent_std, variance.sqrt(), rtol=1e-4, atol=1e-4)


def test_a_channel_that_says_nothing_divides_by_no_zero():
    tokenizer = toy_tokenizer(text=False)
    follow(tokenizer, torch.ones(4, 6, 3), 0.0)
    assert bool((tokenizer.latent_std > 0).all())


def test_the_rank_falls_to_one_where_latents_lie_on_a_line():
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(64, 4, 8, generator=generator)
    line = torch.randn(64, 1, 1, generator=generator) * torch.randn(4, 8, generator=generator) + wide[0]
    assert float(spread_rank(line)) == pytest.approx(1.0, abs=1e-3)
    assert 16 < float(spread_rank(wide)) < 32


def test_a_forward_pass_repeats_and_names_what_it_shows():
    model = together(reach=1.0, decoded_weight=1.0)
    assert torch.equal(*(encoder_gradient(together(reach=1.0, decoded_weight=1.0)) for _ in range(2)))
    assert set(model(toy_batch())) >= {"loss", "tokenizer_loss", "sequence_loss", "expected_loss", "latent_rank"}


@pytest.mark.parametrize(
    ("tokenizer", "generator", "settings", "named"),
    [
        ({"bottleneck": {"kind": "fsq", "levels": [5, 4, 3]}}, {}, {}, "continuous latents"),
        ({}, {"sequence": {"kind": "full_image"}}, {"reach": 0.5}, "reads what it leads to"),
        ({}, {"head": {"kind": "mse"}}, {"decoded_weight": 1.0}, "flow head"),
        ({"decoder": {"kind": "flow"}}, {}, {"decoded_weight": 1.0}, "in one pass"),
    ],
)
def test_what_cannot_be_trained_together_is_said(
    tokenizer: dict[str, Any], generator: dict[str, Any], settings: dict[str, Any], named: str
):
    config = CoevolutionConfig.parse(settings, "test")
    model = toy_generator(**generator)
    first = TokenizerObjective(toy_tokenizer(text=False, **tokenizer), TokenizerTrainingConfig())
    second = GeneratorObjective(model, GeneratorObjectiveConfig(), model.spec)
    with pytest.raises(ConfigError, match=named):
        CoevolutionObjective(first, second, config)


def test_embeddings_that_still_change_are_no_prompts():
    with pytest.raises(ConfigError, match=r"rebuild_share: embeddings that still change are no prompts"):
        CoevolutionConfig.parse({"generator": {"rebuild_share": 0.5}}, "test")
