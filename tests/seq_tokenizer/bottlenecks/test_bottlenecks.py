"""Every bottleneck: what passes, at what rate, and what the discrete ones make of codes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seq_tokenizer import LatentSpec, SeqTokenizer, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.bottlenecks.build import BOTTLENECKS
from seq_tokenizer.bottlenecks.discrete import codebook_use
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.layers.randomness import Draws
from tests.seq_tokenizer.toy import toy_batch, toy_pixels, toy_tokenizer

DISCRETE: dict[str, dict[str, Any]] = {
    "vq": {"codebook_size": 32},
    "fsq": {"levels": [5, 4, 3]},
    "residual_vq": {"codebook_size": 16, "quantizers": 3},
}
ALL: dict[str, dict[str, Any]] = {"rms": {}, "kl": {}, "none": {}, **DISCRETE}
BITS = {"kl": math.inf, "none": math.inf, "vq": 6 * 5, "fsq": 6 * math.log2(60), "residual_vq": 6 * 3 * 4}


def tokenizer(kind: str, **changes: Any) -> SeqTokenizer:
    return toy_tokenizer(bottleneck={"kind": kind, **ALL[kind], **changes})


def test_every_bottleneck_is_here():
    assert {*ALL, "pyramid", "lossless"} == set(BOTTLENECKS), "these two have a file of their own"


@pytest.mark.parametrize("kind", ALL)
def test_fewer_tokens_are_the_first_ones(kind: str):
    model, pixels = tokenizer(kind), toy_pixels()
    full = model.encode(pixels)
    assert full.dtype == torch.float32
    assert torch.equal(model.encode(pixels), full), "encoding is not noisy"
    torch.testing.assert_close(model.encode(pixels, 2), full[:, :2])


@pytest.mark.parametrize("kind", ALL)
def test_the_gradient_reaches_the_encoder_and_a_step_can_be_made(kind: str):
    objective = TokenizerObjective(tokenizer(kind), TokenizerTrainingConfig()).train()
    losses = objective(toy_batch())
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert objective.tokenizer.encoder.queries.grad.abs().max() > 0
    assert objective.muon_excluded() <= {name for name, _ in objective.named_parameters()}
    again = TokenizerObjective(tokenizer(kind), TokenizerTrainingConfig()).train()(toy_batch())
    assert torch.equal(again["loss"], losses["loss"]), "a step is a function of weights and samples"


@pytest.mark.parametrize("kind", ALL)
def test_a_folder_keeps_it(kind: str, tmp_path: Path):
    model, pixels = tokenizer(kind), toy_pixels(16)
    model.measure_latents([pixels])
    model.save_pretrained(tmp_path)
    again = SeqTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode(pixels), model.encode(pixels))
    assert again.spec.codebook_size == getattr(model.bottleneck, "codebook_size", None)


@pytest.mark.parametrize("kind", BITS)
def test_the_rate_is_said(kind: str):
    assert tokenizer(kind).bottleneck.bits(6) == pytest.approx(BITS[kind])


@pytest.mark.parametrize("kind", DISCRETE)
def test_codes_are_the_latents(kind: str):
    """Latents are entries, codes lead back to them, and decoding either is the same picture."""
    model, pixels = tokenizer(kind), toy_pixels()
    codes, z = model.encode_codes(pixels), model.encode(pixels)
    assert codes.dtype == torch.int64
    assert int(codes.min()) >= 0
    assert int(codes.max()) < model.spec.codebook_size
    assert codes.shape == ((3, 6, 3) if kind == "residual_vq" else (3, 6))
    torch.testing.assert_close(model.bottleneck.look_up(codes), z)
    table, parts = model.codebook(), model.spec.codes_per_token
    assert table.shape == (parts, model.spec.codebook_size, z.shape[2])
    entries = sum(table[q][codes if parts == 1 else codes[..., q]] for q in range(parts))
    torch.testing.assert_close(entries, z)
    torch.testing.assert_close(model.decode_codes(codes), model.decode(z))
    torch.testing.assert_close(model.decode_codes(codes[:, :2]), model.decode(z, 2))
    assert torch.equal(model.encode_codes(pixels, 2), codes[:, :2])


@pytest.mark.parametrize("kind", ["vq", "fsq"])
def test_the_code_of_a_latent_is_that_of_its_entry(kind: str):
    """The nearest of all entries, found by hand."""
    model = tokenizer(kind)
    codes, z = model.encode_codes(toy_pixels()), model.encode(toy_pixels())
    entries = model.bottleneck.look_up(torch.arange(model.spec.codebook_size)[None])[0]
    assert torch.equal(torch.cdist(z.flatten(0, 1), entries).argmin(-1).view_as(codes), codes)


def test_a_token_of_one_code_has_no_axis_for_it():
    model = tokenizer("residual_vq", quantizers=1)
    codes = model.encode_codes(toy_pixels())
    assert codes.shape == (3, 6)
    torch.testing.assert_close(model.bottleneck.look_up(codes), model.encode(toy_pixels()))


@pytest.mark.parametrize("kind", DISCRETE)
def test_weights_of_16_bits_have_codes_of_their_own(kind: str):
    model = tokenizer(kind).to(torch.bfloat16)
    codes, z = model.encode_codes(toy_pixels()), model.encode(toy_pixels())
    assert z.dtype == torch.float32
    assert model.bottleneck.look_up(codes).dtype == torch.float32
    torch.testing.assert_close(model.bottleneck.look_up(codes), z)
    assert torch.isfinite(model.decode_codes(codes)).all()


@pytest.mark.parametrize("kind", ALL)
def test_a_step_draws_no_global_random_number_and_changes_no_buffer(kind: str):
    """What the library keeps for moving averages stays as it began: every rank has the same, and a resume has it."""
    objective = TokenizerObjective(tokenizer(kind), TokenizerTrainingConfig()).train()
    before = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    state = torch.random.get_rng_state()
    objective(toy_batch())["loss"].backward()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in objective.named_buffers())


@pytest.mark.parametrize("kind", ["vq", "residual_vq"])
def test_every_codebook_is_trained(kind: str):
    objective = TokenizerObjective(tokenizer(kind), TokenizerTrainingConfig()).train()
    objective(toy_batch())["loss"].backward()
    books = {n: p.grad for n, p in objective.named_parameters() if n.endswith("_codebook.embed")}
    assert len(books) == (3 if kind == "residual_vq" else 1)
    assert all(gradient is not None and gradient.any() for gradient in books.values())


def test_the_spec_says_what_codes_are():
    spec = tokenizer("residual_vq").spec
    assert (spec.codebook_size, spec.codes_per_token) == (16, 3)
    assert LatentSpec.from_json(spec.to_json()).codes_per_token == 3
    assert "codes_per_token" not in toy_tokenizer().spec.to_json(), "a file of latents without codes is as it was"
    with pytest.raises(DataError, match="0 codes per token"):
        LatentSpec.from_json({**spec.to_json(), "codes_per_token": 0})


@pytest.mark.parametrize("kind", DISCRETE)
def test_training_sees_the_latents_that_encoding_gives(kind: str):
    """In bf16, too: rounding is done in float32."""
    model, batch = tokenizer(kind).train(), toy_batch()
    draws = Draws(0, batch.epoch, batch.index)
    torch.testing.assert_close(model.bottle(batch.pixels(), draws).z, model.eval().encode(batch.pixels()))
    with torch.autocast("cpu", torch.bfloat16):
        bottled = model.bottle(batch.pixels(), draws)
    assert bottled.z.dtype == torch.float32
    torch.testing.assert_close(model.bottleneck.look_up(bottled.codes), bottled.z)


def test_the_use_of_a_codebook():
    used = codebook_use(torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3]]), 16)
    assert float(used["codebook_used"]) == pytest.approx(0.25)
    assert float(used["codebook_perplexity"]) == pytest.approx(4.0)
    one = codebook_use(torch.zeros(4, 2, dtype=torch.int64), 16)
    assert float(one["codebook_perplexity"]) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", DISCRETE)
def test_the_use_of_a_codebook_is_logged(kind: str):
    losses = TokenizerObjective(tokenizer(kind), TokenizerTrainingConfig())(toy_batch())
    assert 0 < float(losses["codebook_used"]) <= 1
    assert float(losses["codebook_perplexity"]) >= 1


def test_the_rate_of_a_gaussian_is_its_divergence_from_the_standard_one():
    """By torch.distributions; training draws around the mean, encoding gives it."""
    model, batch = tokenizer("kl"), toy_batch(64)
    h = model.encoder(batch.pixels())
    draws = Draws(0, batch.epoch, batch.index)
    mean, log_variance = model.bottleneck.project(h).chunk(2, -1)
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    nats = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    bottled = model.bottleneck(h, draws)
    torch.testing.assert_close(bottled.losses["kl_loss"], 1e-3 * nats.mean())
    torch.testing.assert_close(bottled.shown["kl_bits"], nats.sum((1, 2)).mean() / math.log(2))
    standard = (bottled.z - mean) / normal.scale
    assert float(standard.std().detach()) == pytest.approx(1.0, abs=0.1)
    assert torch.equal(model.bottleneck(h, None).z, mean)


def test_each_channel_has_its_levels():
    with pytest.raises(ConfigError, match=r"bottleneck\.levels=\[5, 4\] are 2 channels, latent_dim=3"):
        tokenizer("fsq", levels=[5, 4])
    z = tokenizer("fsq").encode(toy_pixels(16))
    assert [len(z[..., channel].unique()) <= levels for channel, levels in enumerate((5, 4, 3))] == [True] * 3


def test_a_tokenizer_without_codebook_has_no_codes():
    with pytest.raises(ConfigError, match="no codebook: its bottleneck is rms"):
        toy_tokenizer().encode_codes(toy_pixels())
    with pytest.raises(ConfigError, match="no codebook"):
        toy_tokenizer().decode_codes(torch.zeros(1, 6, dtype=torch.int64))


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'seqtok\[vq\]'"):
        tokenizer("vq")
