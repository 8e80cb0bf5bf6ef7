"""Other projects' tokenizers through two functions: an architecture of diffusers, with the weights it starts with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seqtok.runs.judge.foreign import is_foreign, open_foreign
from seqtok_core.foundation.errors import DataError

KL = """
import torch
from diffusers import AutoencoderKL

torch.manual_seed(0)
IMAGE_SIZE = 16
model = AutoencoderKL(block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                      up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4).eval()

def encode(pixels):
    with torch.no_grad():
        return model.encode(pixels).latent_dist.mode().flatten(2).transpose(1, 2)  # raster order

def decode(latents):
    side = int(latents.shape[1] ** 0.5)
    with torch.no_grad():
        return model.decode(latents.transpose(1, 2).unflatten(2, (side, side))).sample
"""
CUTS = """
IMAGE_SIZE = 8
def encode(pixels):
    return pixels.flatten(2)
def decode(latents, num_tokens):
    kept = latents.clone()
    kept[:, num_tokens:] = 0
    return kept.unflatten(2, (8, 8))
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "theirs.py"
    path.write_text(text)
    return path


def test_a_public_architecture_is_a_tokenizer(tmp_path: Path):
    tokenizer = open_foreign(written(tmp_path, KL))
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = tokenizer.encode(pixels)
    assert latents.shape == (3, 64, 4)
    assert tokenizer.decode(latents).shape == pixels.shape
    assert torch.equal(tokenizer.decode(latents, 64), tokenizer.decode(latents))
    assert not torch.equal(tokenizer.decode(latents, 1), tokenizer.decode(latents))


def test_missing_tokens_are_their_means_or_the_decoders_matter(tmp_path: Path):
    kept = []
    path = written(tmp_path, "IMAGE_SIZE = 8\ndef encode(x): return x.flatten(2)\ndef decode(z): return z[..., None]\n")
    tokenizer = open_foreign(path)
    pixels = torch.arange(2 * 3 * 64.0).view(2, 3, 8, 8)
    latents = tokenizer.encode(pixels)
    kept = tokenizer.decode(latents, 1)[..., 0]
    assert torch.equal(kept[:, :1], latents[:, :1])
    assert torch.equal(kept[0, 1:], latents.mean(0)[1:])
    cutting = open_foreign(written(tmp_path, CUTS))
    assert not cutting.decode(cutting.encode(pixels), 1)[:, 1:].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IMAGE_SIZE = 8\ndef encode(x): return x\n", "has no decode"),
        ("raise RuntimeError('no weights')", "RuntimeError: no weights"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError, match=message):
        open_foreign(written(tmp_path, text))


def test_other_shapes_are_refused(tmp_path: Path):
    path = written(tmp_path, "IMAGE_SIZE = 8\ndef encode(x): return x\ndef decode(z): return z\n")
    with pytest.raises(DataError, match=r"encode gave \(2, 3, 8, 8\), not \(2, K, D\)"):
        open_foreign(path).encode(torch.zeros(2, 3, 8, 8))
    with pytest.raises(DataError, match=r"decode gave \(2, 4, 5\)"):
        open_foreign(path).decode(torch.zeros(2, 4, 5))
    with pytest.raises(DataError, match="no such file"):
        open_foreign(tmp_path / "nowhere.py")
    assert is_foreign("theirs.py")
    assert not is_foreign("runs/demo/tokenizer/model")
