"""Scales: what a scale says is taken from the features before the next one looks, and no scale looks ahead."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from seq_tokenizer import LatentSpec, SeqTokenizer, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.bottlenecks.pyramid import ResidualPyramid
from seq_tokenizer.tokenizer import parameter_count
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws
from tests.seq_tokenizer.toy import CONFIG, toy_batch, toy_pixels, toy_tokenizer

SCALES = ((1, 1), (1, 2), (2, 2), (3, 3))
SIZES = (1, 2, 4, 9)
STARTS = (0, 1, 3, 7, 16)
GROUP = torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))  # the scale of each token


def pyramid_tokenizer(text: bool = False, **bottleneck: Any) -> SeqTokenizer:
    parts = {"encoder": {"kind": "grid"}, "bottleneck": {"kind": "pyramid", **bottleneck}}
    return toy_tokenizer(text=text, num_latents=16, **parts)


def toy_features(count: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 16, 3, generator=torch.Generator().manual_seed(seed))


def toy_pyramid() -> ResidualPyramid:
    torch.manual_seed(0)
    pyramid = ResidualPyramid(SCALES, (4, 4), 3)
    for parameter in pyramid.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return pyramid


def test_latents_in_the_order_of_scales():
    model, pixels = pyramid_tokenizer(), toy_pixels()
    z = model.encode(pixels)
    assert z.shape == (3, 16, 3)
    assert model.bottleneck.groups == model.spec.groups == SIZES
    torch.testing.assert_close(z.square().mean(-1), torch.ones(3, 16), atol=1e-3, rtol=1e-3)


def test_the_first_scale_is_the_mean_of_all():
    seen = []
    toy_pyramid()(toy_features(), lambda mean, rows: seen.append((mean, rows)) or mean)
    torch.testing.assert_close(seen[0][0], toy_features().mean(1, keepdim=True))
    assert [(rows.start, rows.stop) for _, rows in seen] == list(pairwise(STARTS))


def test_each_scale_is_the_mean_of_what_the_sums_leave():
    """`sums` of the latents alone, as a reader of the sequence has them, is what was subtracted while coding."""
    pyramid, features = toy_pyramid(), toy_features()
    z, missing = pyramid(features, lambda mean, rows: mean)
    sums = pyramid.sums(z)
    for index in range(1, 4):
        left = (features - sums[:, index - 1]).transpose(1, 2).reshape(5, 3, 4, 4)
        pooled = F.interpolate(left, SCALES[index], mode="area").flatten(2).transpose(1, 2)
        torch.testing.assert_close(z[:, STARTS[index] : STARTS[index + 1]], pooled)
    torch.testing.assert_close(missing, (features[:, None] - sums).square().mean())


def test_what_a_scale_says_is_spread_bicubically():
    pyramid, z = ResidualPyramid(SCALES, (4, 4), 3), toy_features()  # without its convolutions, which begin as zero
    picture = z[:, 7:].transpose(1, 2).reshape(5, 3, 3, 3)
    spread = F.interpolate(picture, (4, 4), mode="bicubic").flatten(2).transpose(1, 2)
    sums = pyramid.sums(z)
    torch.testing.assert_close(sums[:, 3] - sums[:, 2], 0.5 * spread)


def test_no_scale_looks_ahead():
    """By gradient of the noise that each token met: a token depends on its own and on coarser scales', on no other."""
    model = pyramid_tokenizer()
    noise = (0.1 * torch.randn(1, 16, 3, generator=torch.Generator().manual_seed(2))).requires_grad_()
    z, _ = model.bottleneck.code(F.normalize(toy_features(1), dim=-1), noise)
    for token in range(16):
        (gradient,) = torch.autograd.grad(z[0, token].square().sum(), noise, retain_graph=True)
        expected = (GROUP[token] > GROUP) | (torch.arange(16) == token)
        assert torch.equal(gradient[0].abs().sum(1) > 0, expected)


def test_fewer_tokens_are_the_first_and_later_ones_do_not_matter():
    model, pixels = pyramid_tokenizer(), toy_pixels()
    full = model.encode(pixels)
    for k in (1, 2, 5, 16):
        assert torch.equal(model.encode(pixels, k), full[:, :k])
    assert model.bottle(pixels, None, 5).bits == pytest.approx(5 / 16 * model.bottle(pixels, None).bits)
    spoiled = full.clone()
    spoiled[:, 3:] = 100.0
    assert torch.equal(model.decode(spoiled, 3), model.decode(full, 3))


def test_what_is_left_shrinks_from_scale_to_scale():
    """Gains and convolutions learn least squares of each scale: what it leaves is less than what it found."""
    bottleneck = pyramid_tokenizer().bottleneck
    features = F.normalize(toy_features(256) + toy_features(1, seed=3), dim=-1) * 3**0.5
    optimizer = torch.optim.Adam(bottleneck.pyramid.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        bottleneck.code(features, None)[1].backward()
        optimizer.step()
    sums = bottleneck.pyramid.sums(bottleneck.code(features, None)[0])
    left = torch.cat([features.square().mean()[None], (features[:, None] - sums).square().mean((0, 2, 3))])
    assert (left[1:] < 0.97 * left[:-1]).all(), left


def test_only_what_is_missing_trains_the_gains():
    model, batch = pyramid_tokenizer(), toy_batch()
    draws = Draws(0, batch.epoch, batch.index)
    bottled = model.bottle(batch.pixels(), draws)
    own = list(model.bottleneck.pyramid.parameters())
    rest = [p for name, p in model.bottleneck.named_parameters() if not name.startswith("pyramid.")]
    by_latents = torch.autograd.grad(bottled.z.square().sum(), own, allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in by_latents)
    loss = bottled.losses["residual_loss"]
    assert all(g is None for g in torch.autograd.grad(loss, rest, allow_unused=True, retain_graph=True))
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, own))
    assert model.bottle(batch.pixels(), None).losses == {}


def test_only_training_is_noisy():
    model, batch = pyramid_tokenizer(), toy_batch(64)
    draws = Draws(0, batch.epoch, batch.index)
    noisy, clean = model.bottle(batch.pixels(), draws).z, model.encode(batch.pixels())
    assert float((noisy - clean)[:, 0].std()) == pytest.approx(0.1, rel=0.3)
    assert model.bottleneck.bits(16) == pytest.approx(24 * 6.658, rel=1e-3)


def test_a_pyramid_is_trained_saved_and_loaded(tmp_path: Path):
    objective = TokenizerObjective(pyramid_tokenizer(text=True), TokenizerTrainingConfig())
    losses = objective(toy_batch())
    losses["loss"].backward()
    assert {"pixel_loss", "residual_loss"} <= losses.keys()
    assert {name for name, p in objective.named_parameters() if p.grad is None} == set()
    model = objective.tokenizer
    model.measure_latents([toy_pixels(16)])
    model.save_pretrained(tmp_path)
    again = SeqTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode(toy_pixels()), model.encode(toy_pixels()))
    assert again.tokenizer_id == model.tokenizer_id
    assert LatentSpec.from_json(model.spec.to_json()).groups == SIZES
    assert parameter_count(model.config) == sum(p.numel() for p in model.parameters())


def test_features_see_each_other():
    """No cell comes first: the query of the last cell reaches the feature of the first."""
    encoder, pixels = pyramid_tokenizer().encoder, toy_pixels()
    before = encoder(pixels)
    with torch.no_grad():
        encoder.queries[15].normal_(generator=torch.Generator().manual_seed(9))
    assert not torch.allclose(encoder(pixels)[:, 0], before[:, 0], atol=1e-4)


def test_the_grid_is_the_least_that_holds_the_finest_scale():
    def grid(**bottleneck: Any) -> tuple[int, int]:
        cells = sum(rows * columns for rows, columns in bottleneck["scales"])
        parts = {"encoder": {"kind": "grid"}, "bottleneck": {"kind": "pyramid", **bottleneck}}
        return SeqTokenizer(TokenizerConfig.parse({**CONFIG, "num_latents": cells, **parts})).encoder.cells

    assert grid(scales=[[1, 1], [2, 2]]) == (2, 2)
    assert grid(scales=[[1, 1], [1, 3]]) == (1, 4)
    assert grid(scales=[[1, 1], [2, 2]], grid=[4, 4]) == (4, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_latents": 6}, "bottleneck.scales=1 x 1, 1 x 2, 2 x 2, 3 x 3 have 16 cells, num_latents=6"),
        ({"encoder": {"kind": "qformer"}}, "encoder.kind=qformer gives tokens without a place.*set encoder.kind=grid"),
        ({"encoder": {"kind": "grid", "order": "snake"}}, "lays out the sequence itself; leave"),
        ({"encoder": {"kind": "grid", "grid": [2, 4]}}, "lays out the sequence itself; leave"),
        ({"bottleneck": {"grid": [2, 2]}}, "bottleneck.grid=2 x 2 must divide the 4 x 4 patches .* 3 x 3"),
        ({"bottleneck": {"scales": [[3, 3], [2, 3], [1, 1]]}}, "each must be at least as fine as the one before it"),
        ({"bottleneck": {"scales": [[1, 1], [3, 5]]}}, "bottleneck.grid=4 x 4 must .* finest scale, 3 x 5"),
        ({"bottleneck": {"scales": []}}, "at least as fine"),
    ],
)
def test_scales_that_do_not_fit_say_the_way_out(values: dict[str, Any], message: str):
    parts: dict[str, Any] = {**CONFIG, "num_latents": 16, "encoder": {"kind": "grid"}, **values}
    parts["bottleneck"] = {"kind": "pyramid", **values.get("bottleneck", {})}
    with pytest.raises(ConfigError, match=message):
        TokenizerConfig.parse(parts)
