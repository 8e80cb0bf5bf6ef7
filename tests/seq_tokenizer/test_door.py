"""The door of the tokenizer: what is refused, and what 16-bit weights do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from seq_tokenizer import SeqTokenizer
from seqtok_core.foundation.errors import ConfigError, MismatchError
from tests.seq_tokenizer.toy import ENCODERS, toy_pixels, toy_tokenizer


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_tokenizer_of_16_bits_is_a_tokenizer(encoder: str, tmp_path: Path):
    """Pictures, latents, statistics and the folder: all that float32 weights can do, nearly the same."""
    model, pixels = toy_tokenizer(encoder), toy_pixels(8)
    model.measure_latents(pixels.split(4))
    wide, shown, statistics = model.encode(pixels), model.decode(model.encode(pixels)), model.latent_std.clone()
    model.to(torch.bfloat16)
    latents = model.encode(pixels)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, wide, atol=0.1, rtol=0.1)
    torch.testing.assert_close(model.decode(latents).float(), shown, atol=0.1, rtol=0.1)
    assert torch.equal(model.latent_std, statistics), "statistics are not rounded"
    model.save_pretrained(tmp_path)
    loaded = SeqTokenizer.from_pretrained(tmp_path).to(torch.bfloat16)
    assert loaded.spec.tokenizer_id == model.spec.tokenizer_id
    assert torch.equal(loaded.encode(pixels), latents)


@pytest.mark.parametrize("count", [-1, 0, 7, 99])
def test_only_so_many_tokens_can_be_asked_for(count: int):
    with pytest.raises(ConfigError, match=rf"num_tokens={count}: choose from 1 to 6"):
        toy_tokenizer().encode(toy_pixels(), num_tokens=count)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ((toy_pixels() + 1) * 127.5, r"pixels from .* to 2\d\d: pictures are float in \[-1, 1\]"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), r"pictures of torch.uint8: make them float"),
        (torch.zeros(3, 16, 16), r"pictures of shape \(3, 16, 16\): \(B, 3, H, W\)"),
        (torch.zeros(2, 1, 16, 16), r"pictures of shape \(2, 1, 16, 16\)"),
        (torch.zeros(2, 3, 18, 16), r"multiples of the patch, 4"),
        (torch.zeros(2, 3, 17, 15), r"17 x 15 pixels .*; the nearest is 16 x 16"),
        (torch.zeros(2, 3, 0, 0), r"the nearest is 4 x 4"),
        (torch.full((2, 3, 16, 16), torch.nan), r"pixels from nan to nan"),
        (torch.zeros(2, 3, 16, 16).numpy(), r"a tensor \(B, 3, H, W\), not a ndarray"),
    ],
)
def test_what_is_no_picture_is_refused(pixels: Tensor, message: str):
    with pytest.raises(ConfigError, match=message):
        toy_tokenizer().encode(pixels)


@pytest.mark.parametrize(
    ("shape", "count", "message"),
    [
        ((2, 7, 3), None, r"latents of shape \(2, 7, 3\): \(B, k, 3\) with k from 1 to 6"),
        ((2, 6, 4), None, r"latents of shape"),
        ((6, 3), None, r"latents of shape"),
        ((2, 0, 3), None, r"latents of shape"),
        ((2, 4, 3), 5, r"num_tokens=5: choose from 0 to 4"),
        ((2, 4, 3), -1, r"num_tokens=-1"),
    ],
)
def test_what_are_no_latents_is_refused(shape: tuple[int, ...], count: int | None, message: str):
    with pytest.raises(ConfigError, match=message):
        toy_tokenizer().decode(torch.zeros(shape), count)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_picture_alone_is_the_picture_in_a_batch(encoder: str):
    model, pixels = toy_tokenizer(encoder), toy_pixels(32)
    latents = model.encode(pixels)
    torch.testing.assert_close(model.encode(pixels[5:6]), latents[5:6], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.decode(latents[5:6]), model.decode(latents)[5:6], atol=1e-4, rtol=1e-4)


def test_another_captions_model_is_refused(tmp_path: Path):
    """Its ids would mean other words: the text tower and the writer would speak nonsense."""
    (tmp_path / "words").write_bytes(b"these")
    toy_tokenizer().save_pretrained(tmp_path / "model", tmp_path / "words")
    SeqTokenizer.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "captions.model").write_bytes(b"others")
    with pytest.raises(MismatchError, match="put the original file back"):
        SeqTokenizer.from_pretrained(tmp_path / "model")
