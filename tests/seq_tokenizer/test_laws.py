"""Laws of the tokenizer: lossless input, causal order, prefixes that are images, bounded latents."""

from __future__ import annotations

import math

import pytest
import torch

from seq_tokenizer import SeqTokenizer, TextConfig, TokenizerConfig
from seq_tokenizer.bottlenecks.rms import RmsBottleneck, RmsConfig
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.embed import patchify, unpatchify
from tests.seq_tokenizer.toy import CONFIG, ENCODERS, toy_pixels, toy_tokenizer

TEXT = TextConfig(vocab_size=40, context=12, width=16, layers=1, heads=2, embed_dim=8)


def test_patches_are_lossless():
    pixels = toy_pixels(2, 24)
    assert torch.equal(unpatchify(patchify(pixels, 4), 4, 24), pixels)


def test_wide_enough_patch_projection_can_be_undone():
    """Orthogonal columns: with width >= 3 p^2 the pixels come back by the transpose."""
    torch.manual_seed(0)
    from seq_tokenizer.encoders.titok import TitokConfig, TitokEncoder

    shape = TokenizerShape(image_size=8, patch_size=4, width=64, heads=2, encoder_layers=1, decoder_layers=1)
    project = TitokEncoder(TitokConfig(), shape).patches.project
    patches = torch.randn(5, 48)
    torch.testing.assert_close((project(patches) - project.bias) @ project.weight, patches)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_fewer_queries_give_the_first_tokens(encoder: str):
    model, pixels = toy_tokenizer(encoder), toy_pixels()
    full = model.encode(pixels)
    for k in (1, 2, 5):
        torch.testing.assert_close(model.encode(pixels, k), full[:, :k])


def test_layers_are_shared_out_between_patches_and_queries():
    def layers(**settings: int) -> tuple[int, int]:
        values = {**CONFIG, "encoder_layers": 5, "encoder": {"kind": "qformer", **settings}}
        encoder = SeqTokenizer(TokenizerConfig.parse(values)).encoder
        return len(encoder.trunk), len(encoder.readers)

    assert layers() == (2, 3)
    assert layers(trunk_layers=4) == (4, 1)
    with pytest.raises(ConfigError, match=r"encoder\.trunk_layers=5 of encoder_layers=5: at least one layer"):
        layers(trunk_layers=5)


def test_registers_are_read():
    model, pixels = toy_tokenizer("qformer with registers"), toy_pixels()
    before = model.encode(pixels)
    with torch.no_grad():
        model.encoder.registers.normal_(generator=torch.Generator().manual_seed(9))
    assert not torch.allclose(model.encode(pixels)[:, 0], before[:, 0], atol=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_token_sees_a_later_query(encoder: str):
    model, pixels = toy_tokenizer(encoder), toy_pixels()
    before = model.encode(pixels)
    with torch.no_grad():
        model.encoder.queries[3:].normal_(generator=torch.Generator().manual_seed(9))
    after = model.encode(pixels)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 3:], before[:, 3:], atol=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_later_tokens_do_see_earlier_queries(encoder: str):
    model, pixels = toy_tokenizer(encoder), toy_pixels()
    before = model.encode(pixels)
    with torch.no_grad():
        model.encoder.queries[0].normal_(generator=torch.Generator().manual_seed(9))
    assert not torch.allclose(model.encode(pixels)[:, 1:], before[:, 1:], atol=1e-3)


def test_latents_have_unit_rms():
    z = toy_tokenizer().encode(toy_pixels())
    torch.testing.assert_close(z.square().mean(-1), torch.ones(3, 6), atol=1e-3, rtol=1e-3)


def test_a_prefix_is_an_image_and_later_latents_do_not_matter():
    model = toy_tokenizer()
    z = model.encode(toy_pixels())
    spoiled = z.clone()
    spoiled[:, 2:] = 100.0
    assert torch.equal(model.decode(spoiled, 2), model.decode(z, 2))
    torch.testing.assert_close(model.decode(z[:, :2]), model.decode(z, 2))
    assert not torch.allclose(model.decode(z, 3), model.decode(z, 2), atol=1e-4)


def test_each_image_may_have_its_own_prefix_length():
    model = toy_tokenizer()
    z = model.encode(toy_pixels())
    together = model.decode(z, torch.tensor([1, 4, 6]))
    for row, k in enumerate((1, 4, 6)):
        torch.testing.assert_close(together[row : row + 1], model.decode(z[row : row + 1], k), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_other_sizes_than_the_training_one_can_be_encoded(encoder: str):
    model = toy_tokenizer(encoder)
    assert model.encode(torch.rand(2, 3, 24, 20)).shape == (2, 6, 3)


def test_prefix_embeddings_are_causal_and_nested():
    model = toy_tokenizer()
    z = model.encode(toy_pixels())
    full = model.prefix_embeddings(z)
    spoiled = z.clone()
    spoiled[:, 4:] += 1.0
    assert torch.equal(model.prefix_embeddings(spoiled)[:, :4], full[:, :4])
    torch.testing.assert_close(model.prefix_embeddings(z[:, :2]), full[:, :2])
    torch.testing.assert_close(full.norm(dim=-1), torch.ones(3, 6))


def test_text_embedding_does_not_depend_on_padding_or_neighbours():
    model = toy_tokenizer()
    ids = torch.tensor([[7, 8, 0, 0], [9, 0, 0, 0], [7, 8, 0, 0]])
    out = model.encode_text(ids)
    torch.testing.assert_close(out[0], out[2])
    torch.testing.assert_close(model.encode_text(ids[:1, :2])[0], out[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.encode_text(torch.tensor([[9]]))[0], out[1], atol=1e-6, rtol=1e-5)


def test_text_comes_in_few_shapes():
    """Each new shape costs a CPU compiled kernels that it keeps: memory would grow with every step."""
    model = SeqTokenizer(toy_tokenizer().config.model_copy(update={"text": TEXT}))
    shapes = set()
    model.text.tower.register_forward_pre_hook(lambda module, inputs: shapes.add(tuple(inputs[0].shape)))
    for rows in (1, 5, 16, 17, 30):
        for tokens in (1, 7, 8, 11):
            model.encode_text(torch.randint(6, 40, (rows, tokens)))
    assert shapes == {(rows, tokens) for rows in (16, 32) for tokens in (8, 12)}  # 12: the tower's context


def test_a_caption_that_is_too_long_is_refused_and_padding_is_not():
    model = toy_tokenizer()  # context of 8: seven tokens and <eos>
    long = torch.arange(6, 14)[None]
    assert model.encode_text(torch.cat([long[:, :7], torch.zeros(1, 9, dtype=torch.int64)], 1)).shape == (1, 8)
    with pytest.raises(ConfigError, match="8 tokens, the text tower takes 7"):
        model.encode_text(long)


def test_capacity_is_shannons():
    def bits(length: int, dim: int, noise: float) -> float:
        return RmsBottleneck(RmsConfig(noise=noise), TokenizerShape(latent_dim=dim)).bits(length)

    assert bits(1, 2, 1.0) == pytest.approx(1.0)
    assert bits(16, 8, 0.1) == pytest.approx(64 * 6.658, rel=1e-3)
    assert bits(16, 8, 0.0) == math.inf


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_token_shares_its_look_out_among_the_patches(encoder: str):
    model, pixels = toy_tokenizer(encoder), toy_pixels(2)
    before = model.encoder(pixels)
    looks = model.encoder.looks(pixels)
    assert looks.shape == (2, CONFIG["num_latents"], 16)
    assert float(looks.min()) >= 0
    torch.testing.assert_close(looks.sum(-1), torch.ones(2, CONFIG["num_latents"]))
    assert (looks[0] - looks[1]).abs().max() > 1e-4, "another picture is looked at in another way"
    torch.testing.assert_close(model.encoder.looks(pixels[1:]), looks[1:])
    assert torch.equal(model.encoder(pixels), before)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_where_a_token_looks_is_asked_by_its_own_query_and_earlier_ones(encoder: str):
    model, pixels = toy_tokenizer(encoder), toy_pixels(1)
    before = model.encoder.looks(pixels)
    with torch.no_grad():
        model.encoder.queries[3] += torch.randn(32, generator=torch.Generator().manual_seed(3))
    changed = (model.encoder.looks(pixels) - before).abs().amax((0, 2)) > 1e-5
    assert not changed[:3].any()
    assert changed[3]


def test_a_lossless_token_looks_at_its_patch():
    shape = {"num_latents": 16, "latent_dim": 48, "width": 48, "bottleneck": {"kind": "lossless"}}
    model = toy_tokenizer(
        {"kind": "lossless", "order": "snake"}, False, decoder={"kind": "lossless", "order": "snake"}, **shape
    )
    looks = model.encoder.looks(toy_pixels(2))
    assert torch.equal(looks.argmax(-1), torch.tensor([model.encoder.order] * 2))
    assert torch.equal(looks.sum(-1), torch.ones(2, 16))
