"""Laws of the flow decoder: a prefix decides, the seed draws, its loss teaches the encoder, a few are learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seq_tokenizer import SeqTokenizer, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.decoders.flow import FlowDecoder
from seq_tokenizer.losses.generative import GenerativeConfig
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.blocks import Block, ModulatedBlock, init_linear
from seqtok_core.layers.randomness import Draws
from tests.seq_tokenizer.toy import CONFIG, toy_batch, toy_latents, toy_pixels, toy_tokenizer


def toy_flow(**settings: Any) -> SeqTokenizer:
    return toy_tokenizer(text=False, decoder={"kind": "flow", "steps": 3, **settings})


@pytest.mark.parametrize("settings", [{}, {"guidance": 2.0}, {"solver": "heun"}])
def test_a_prefix_is_a_picture_and_later_latents_do_not_matter(settings: dict[str, Any]):
    model, z = toy_flow(**settings), toy_latents()
    spoiled = z.clone()
    spoiled[:, 2:] = 100.0
    assert torch.equal(model.decode(spoiled, 2), model.decode(z, 2))
    torch.testing.assert_close(model.decode(z[:, :2]), model.decode(z, 2))
    assert not torch.allclose(model.decode(z, 3), model.decode(z, 2), atol=1e-4)


def test_the_seed_draws_the_picture_and_its_place_in_the_batch_does_not():
    model, z = toy_flow(seed=5), toy_latents()
    assert torch.equal(model.decode(z, seed=7), model.decode(z, seed=7))
    assert torch.equal(model.decode(z), model.decode(z, seed=5))
    assert not torch.allclose(model.decode(z, seed=8), model.decode(z, seed=7), atol=0.1)
    together = model.decode(z, torch.tensor([1, 4, 6]), seed=7)
    for row, k in enumerate((1, 4, 6)):
        alone = model.decode(z[row : row + 1], k, seed=7)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_the_seed_is_nothing_to_a_decoder_that_draws_nothing():
    model, z = SeqTokenizer(TokenizerConfig.parse(CONFIG)), toy_latents()
    assert torch.equal(model.decode(z, seed=1), model.decode(z, seed=2))


def test_guidance_leads_away_from_what_is_drawn_without_a_prefix():
    """The first step of one: velocities add up, so guided = free + s (given - free) in the picture itself."""
    z = toy_latents()
    given, free, guided = (
        toy_flow(steps=1, guidance=scale).decode(z, k) for scale, k in ((1.0, 4), (1.0, 0), (3.0, 4))
    )
    torch.testing.assert_close(guided, free + 3.0 * (given - free), atol=1e-5, rtol=1e-4)


def test_a_modulated_block_is_a_plain_one_at_first_and_nothing_behind_closed_gates():
    torch.manual_seed(0)
    x, plain, modulated = torch.randn(2, 5, 16), Block(16, 2), ModulatedBlock(16, 2)
    init_linear(plain, 1)
    weights = {name: value for name, value in plain.state_dict().items() if not name.startswith("norm")}
    modulated.load_state_dict(weights, strict=False)
    torch.testing.assert_close(modulated(x, torch.zeros(2, 6, 16)), plain(x))
    torch.testing.assert_close(modulated(x, torch.zeros(2, 6, 16), rows=slice(3)), plain(x)[:, :3])
    closed = torch.tensor([0.3, 0.7, -1.0] * 2)[None, :, None].expand(2, -1, 16)
    assert torch.equal(modulated(x, closed), x)


def perfect(decoder: FlowDecoder, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_picture", lambda x_t, tokens, modulation: pixels)


def test_who_knows_the_picture_has_no_loss_and_draws_it(monkeypatch: pytest.MonkeyPatch):
    """Also with times so near 1 that the division by 1 - t is bounded."""
    model, z, pixels = toy_flow(time_mean=4.0), toy_latents(), toy_pixels()
    perfect(model.decoder, pixels, monkeypatch)
    draws = Draws(0, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert torch.equal(model.decoder.loss(z, 2, pixels, draws), torch.zeros(3))
    torch.testing.assert_close(model.decode(z), pixels, atol=1e-5, rtol=1e-5)


def test_some_pictures_are_learned_without_any_token():
    model, z, pixels = toy_flow(dropped=0.5), toy_latents(64), toy_pixels(64)
    draws = Draws(0, torch.zeros(64, dtype=torch.int64), torch.arange(64))
    other = model.decoder.loss(z + 1.0, 6, pixels, draws)
    free = torch.isclose(other, model.decoder.loss(z, 6, pixels, draws), rtol=1e-6)
    assert 16 < int(free.sum()) < 48


def test_its_loss_reaches_the_encoder_and_stands_for_the_pixels():
    objective = TokenizerObjective(toy_flow(), TokenizerTrainingConfig())
    losses = objective(toy_batch())
    losses["loss"].backward()
    assert losses.keys() == {"loss", "decoder_loss"}
    missing = [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_what_is_random_belongs_to_the_sample():
    objective = TokenizerObjective(toy_flow(), TokenizerTrainingConfig())
    whole = objective(toy_batch(8))["loss"]
    halves = [objective(toy_batch(4, first=first))["loss"] for first in (0, 4)]
    torch.testing.assert_close(whole, torch.stack(halves).mean())
    other_epoch = replace(toy_batch(8), epoch=torch.ones(8, dtype=torch.int64))
    assert not torch.allclose(objective(other_epoch)["loss"], whole, rtol=1e-4)


def test_short_and_whole_have_noise_of_their_own(monkeypatch: pytest.MonkeyPatch):
    objective = TokenizerObjective(toy_flow(), TokenizerTrainingConfig())
    seen: list[Draws] = []
    real: Callable[..., Tensor] = objective.tokenizer.decoder.loss
    monkeypatch.setattr(objective.tokenizer.decoder, "loss", lambda z, k, x, d: seen.append(d) or real(z, k, x, d))
    objective(toy_batch(8))
    short, whole = seen[0].normal("noise", (50,)).chunk(2)
    assert abs(float(torch.corrcoef(torch.stack([short.flatten(), whole.flatten()]))[0, 1])) < 0.2


def test_the_pixel_decoder_is_trained_as_before():
    model = SeqTokenizer(TokenizerConfig.parse(CONFIG))
    one, other = (
        TokenizerObjective(model, TokenizerTrainingConfig(generative=term))(toy_batch())
        for term in (GenerativeConfig(weight=5.0), None)
    )
    assert torch.equal(one["loss"], other["loss"])


def test_saved_is_loaded(tmp_path: Path):
    model = toy_flow(guidance=1.5, solver="heun", seed=3)
    model.save_pretrained(tmp_path)
    again = SeqTokenizer.from_pretrained(tmp_path)
    assert again.config == model.config
    assert torch.equal(again.decode(toy_latents()), model.decode(toy_latents()))


def test_a_tokenizer_can_get_another_decoder_and_keep_its_latents():
    """Only the decoder is trained, by its own loss alone; latents and embeddings stay bit for bit."""
    other, pixels = toy_tokenizer(seed=1), toy_pixels()
    other.measure_latents([toy_pixels(16)])
    model = toy_tokenizer(decoder={"kind": "flow"}, decoder_layers=1)
    model.take_over(other)
    objective = TokenizerObjective(model, TokenizerTrainingConfig())
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = objective(toy_batch())
    losses["loss"].backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} == {"decoder"}
    assert torch.equal(model.encode(pixels), other.encode(pixels))
    assert torch.equal(model.prefix_embeddings(model.encode(pixels)), other.prefix_embeddings(other.encode(pixels)))
    assert torch.equal(model.spec.mean, other.spec.mean)
    assert losses.keys() == {"loss", "decoder_loss"}
    trained = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.endswith("time_in.weight")} < objective.muon_excluded() < trained


def test_a_decoder_for_other_latents_is_refused_by_the_settings_that_differ():
    with pytest.raises(ConfigError, match="latent_dim is 3 there and 4 here"):
        toy_tokenizer(latent_dim=4).take_over(toy_tokenizer())


@pytest.mark.slow
def test_a_few_pictures_are_learned():
    """Four pictures of plain quarters, named by their latents: drawn from noise they come out as they were."""
    quarters = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    pixels = quarters.repeat_interleave(8, -1).repeat_interleave(8, -2)
    model, z = toy_flow(dropped=0.0, steps=8), toy_latents(4)
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=3e-3)
    rows = torch.arange(4).repeat(16)
    for step in range(150):
        draws = Draws(0, torch.full((64,), step), torch.arange(64))
        loss = model.decoder.loss(z[rows], 6, pixels[rows], draws).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (model.decode(z, seed=1) - pixels).square().mean()
    assert 10 * torch.log10(4.0 / error) > 25.0
