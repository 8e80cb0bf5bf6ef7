"""The parts of a tokenizer and its objective: each kind has a class, a new one is a file and a line; sizes by name."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from seq_tokenizer import SeqTokenizer, TextConfig, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.bottlenecks import build as bottlenecks
from seq_tokenizer.bottlenecks.base import Bottled, Bottleneck
from seq_tokenizer.bottlenecks.rms import RmsBottleneck, RmsConfig
from seq_tokenizer.decoders import build as decoders
from seq_tokenizer.encoders import build as encoders
from seq_tokenizer.losses.base import View
from seq_tokenizer.losses.build import TERMS, LossesConfig
from seq_tokenizer.losses.pixels import PixelsConfig, PixelsTerm, block_means
from seq_tokenizer.shape import PRESETS, TokenizerShape
from seq_tokenizer.tokenizer import parameter_count
from seqtok_core.foundation.config import Config, models_in
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.muon import excluded_from_muon
from seqtok_core.layers.randomness import Draws
from tests.seq_tokenizer.toy import CONFIG, toy_batch, toy_pixels, toy_tokenizer

PARTS = {
    "encoder": (encoders.EncoderConfig, encoders.ENCODERS),
    "bottleneck": (bottlenecks.BottleneckConfig, bottlenecks.BOTTLENECKS),
    "decoder": (decoders.DecoderConfig, decoders.DECODERS),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_kind_has_its_class(part: str):
    config, classes = PARTS[part]
    assert [get_args(member.model_fields["kind"].annotation)[0] for member in models_in(config)] == list(classes)


def test_every_term_has_its_settings():
    assert list(TERMS) == list(LossesConfig.model_fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": {"kind": "titoc"}}, r"encoder\.kind='titoc': did you mean titok\?"),
        ({"bottleneck": {"kind": "rsm"}}, r"bottleneck\.kind='rsm': did you mean rms\?"),
        ({"decoder": {"kind": "flwo"}}, r"decoder\.kind='flwo': did you mean flow\?"),
        ({"bottleneck": {"noize": 0.1}}, r"unknown key bottleneck\.noize; did you mean bottleneck\.noise\?"),
        ({"preset": "XS"}, r"preset='XS': did you mean S\?"),
    ],
)
def test_a_wrong_word_names_the_nearest(values: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        TokenizerConfig.parse({**CONFIG, **values})


class EighthsConfig(Config):
    kind: Literal["eighths"] = "eighths"


class Eighths(Bottleneck):
    """Every channel rounded to eight levels, the gradient passed straight through."""

    def __init__(self, config: EighthsConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.dim, self.project = shape.latent_dim, nn.Linear(shape.width, shape.latent_dim)

    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        z = self.project(h).float().sigmoid()
        rounded = (7 * z).round() / 7
        return Bottled(z + (rounded - z).detach(), None, self.bits(z.shape[1]), {"spread": 0.1 * z.var()})

    def bits(self, length: int) -> float:
        return 3.0 * length * self.dim


def test_a_new_bottleneck_is_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(bottlenecks.BOTTLENECKS, "eighths", Eighths)
    config = TokenizerConfig.parse(CONFIG).model_copy(update={"bottleneck": EighthsConfig()})
    objective = TokenizerObjective(SeqTokenizer(config), TokenizerTrainingConfig())
    before = objective.tokenizer.bottleneck.project.weight.clone()
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
    nn.init.normal_(objective.tokenizer.decoder.pixels.linear.weight)
    losses = objective(toy_batch())
    losses["loss"].backward()
    optimizer.step()
    assert not torch.equal(objective.tokenizer.bottleneck.project.weight, before)
    torch.testing.assert_close(losses["loss"].detach(), losses["pixel_loss"] + losses["spread"])
    latents = objective.tokenizer.encode(toy_pixels())
    assert torch.equal((7 * latents).round() / 7, latents)
    assert torch.equal(objective.tokenizer.encode(toy_pixels(), 2), latents[:, :2])


def test_only_training_is_noisy():
    tokenizer, batch = toy_tokenizer(text=False), toy_batch()
    pixels, draws = batch.pixels(), Draws(0, batch.epoch, batch.index)
    assert torch.equal(tokenizer.bottle(pixels, None).z, tokenizer.encode(pixels))
    noise = (tokenizer.bottle(pixels, draws).z - tokenizer.encode(pixels)).detach()
    assert float(noise.std()) == pytest.approx(tokenizer.config.bottleneck.noise, rel=0.2)


def test_noise_may_differ_along_the_sequence():
    """The last one given holds for all that follow; a token with more noise can carry less."""
    config = RmsConfig(noise=(0.8, 0.0, 0.2))
    assert config.noise_of(6) == (0.8, 0.0, 0.2, 0.2, 0.2, 0.2)
    assert config.noise_of(2) == (0.8, 0.0)
    torch.manual_seed(0)
    shape, h = TokenizerShape.parse(CONFIG), torch.randn(64, 6, CONFIG["width"])
    bottleneck = RmsBottleneck(config, shape)
    draws = Draws(0, torch.zeros(64, dtype=torch.int64), torch.arange(64))
    noise = (bottleneck(h, draws).z - bottleneck(h, None).z).std((0, 2))
    torch.testing.assert_close(noise, torch.tensor(config.noise_of(6)), rtol=0.2, atol=0)
    one = RmsBottleneck(RmsConfig(noise=0.2), shape)
    assert RmsBottleneck(RmsConfig(noise=(0.8, 0.2)), shape).bits(6) < one.bits(6)
    assert one.bits(6) == pytest.approx(6 * 3 / 2 * math.log2(26))
    assert bottleneck.bits(6) == math.inf


def test_short_prefixes_owe_the_gist():
    """The drawn prefix of a picture decides over which blocks its target is averaged; all tokens owe all of it."""
    pixels = toy_pixels(4)
    prefix, shown = torch.tensor([1, 2, 3, 6]), torch.cat([torch.zeros(4, 3, 16, 16), pixels])
    shown[0] = pixels[0].mean((1, 2), keepdim=True)
    for rows, columns in ((rows, columns) for rows in range(4) for columns in range(4)):
        block = slice(4 * rows, 4 * rows + 4), slice(4 * columns, 4 * columns + 4)
        shown[(1, slice(None), *block)] = pixels[(1, slice(None), *block)].mean((1, 2), keepdim=True)
    shown[2:4] = pixels[2:]
    batch, latents = toy_batch(4), torch.zeros(4, 6, 3)
    view = View(batch, pixels, latents, prefix, shown, Draws(0, batch.epoch, batch.index), toy_tokenizer())
    assert float(PixelsTerm(PixelsConfig(gist=(16, 4)), view.tokenizer.config)(view)[0]) == pytest.approx(0, abs=1e-12)
    assert float(PixelsTerm(PixelsConfig(), view.tokenizer.config)(view)[0]) > 1e-3


def test_means_of_blocks_at_the_far_borders_are_of_what_is_there():
    pixels = torch.arange(25.0).reshape(1, 1, 5, 5)
    means = block_means(pixels, 4)
    assert means.shape == pixels.shape
    assert float(means[0, 0, 0, 0]) == float(pixels[..., :4, :4].mean())
    assert float(means[0, 0, 4, 4]) == 24.0


def test_the_objective_is_the_sum_of_its_terms():
    def loss(**terms: Any) -> Tensor:
        return TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig(**terms))(toy_batch())["loss"]

    both, pixels, contrast = loss(), loss(contrast=None), loss(pixels=None)
    torch.testing.assert_close(both, pixels + contrast)
    assert contrast > 0


def test_modules_name_their_own_weights_for_adamw():
    objective = TokenizerObjective(toy_tokenizer("qformer"), TokenizerTrainingConfig())
    assert excluded_from_muon(objective) == {
        "tokenizer.encoder.queries",
        "tokenizer.encoder.patches.project.weight",
        "tokenizer.decoder.positions",
        "tokenizer.decoder.pixels.linear.weight",
        "tokenizer.text.tower.token_embedding.weight",
        "tokenizer.text.tower.positional_embedding",
        "tokenizer.text.tower.text_projection",
        "tokenizer.readout.start",
    }


# Blocks hold 12 W^2 weights and 15 W gains and biases, those that read the patches 4 W^2 more;
# the rest is what turns pixels into W and back, and latents.
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_sizes_that_they_promise(preset: str):
    config = TokenizerConfig.parse({"preset": preset, "text": TextConfig(vocab_size=4096).model_dump()})
    shape = PRESETS[preset]
    assert {key: getattr(config, key) for key in shape} == shape
    readers = shape["encoder_layers"] - shape["encoder_layers"] // 2
    blocks = shape["width"] ** 2 * (12 * (shape["encoder_layers"] + shape["decoder_layers"]) + 4 * readers)
    ends = 2 * 3 * config.patch_size**2 * shape["width"] * 6
    assert blocks < parameter_count(config) < 1.05 * blocks + 1.2 * ends + 3_000_000


def test_the_count_is_that_of_the_real_model():
    model = toy_tokenizer()
    assert parameter_count(model.config) == sum(p.numel() for p in model.parameters())
