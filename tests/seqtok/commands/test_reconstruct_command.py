"""seqtok tokenizer reconstruct: averaged and drawn rows, numbers, what prefixes say, swapped tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ar_model import GeneratorConfig, SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.metrics.reconstruction import psnr
from tests.seqtok.commands.test_commands import save_tokenizer, seqtok


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, a sequence model over its latents, both untrained, and two pictures."""
    root = tmp_path_factory.mktemp("models")
    captions = CaptionTokenizer.train(["a red circle", "a blue square"], root / "captions.model", 300)
    tokenizer = SeqTokenizer.from_pretrained(save_tokenizer(root / "tokenizer", root))
    torch.manual_seed(0)
    config = GeneratorConfig.parse({"width": 16, "depth": 1, "heads": 2, "head": {"width": 16, "depth": 1}})
    SeqGenerator(config, tokenizer.spec, captions).save_pretrained(root / "generator")
    size = tokenizer.config.image_size
    for name, seed in (("a", 0), ("b", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{name}.png")
    return root


def reconstruct(capsys, folder: Path, *words: object) -> tuple[dict, Image.Image]:
    files = [folder / "a.png", folder / "b.png"]
    out = folder / "o.png"
    status, printed, err = seqtok(
        capsys, "tokenizer", "reconstruct", folder / "tokenizer", *files, "--out", out, "--json", *words
    )
    assert status == 0, err
    return json.loads(printed), Image.open(out)


def test_numbers_are_those_of_the_pictures(folder: Path, capsys):
    numbers, _ = reconstruct(capsys, folder)
    tokenizer = SeqTokenizer.from_pretrained(folder / "tokenizer")
    images = torch.stack(
        [torch.from_numpy(np.asarray(Image.open(folder / f)).copy()).permute(2, 0, 1) for f in ("a.png", "b.png")]
    )
    latents = encode_all(tokenizer, images)
    for k in numbers["prefixes"]:
        expected = psnr(decode_all(tokenizer, latents, k), images)
        torch.testing.assert_close(torch.tensor(numbers["psnr"][str(k)]), expected, atol=1e-3, rtol=1e-4)
    assert numbers["says"] is None


def test_rows_for_drawings_and_swaps_are_added(folder: Path, capsys):
    plain = reconstruct(capsys, folder)[1].height
    row = (plain - 18 - 6) // 2
    drawn = reconstruct(capsys, folder, "--generator", folder / "generator", "--drawings", 2, "--steps", 2)[1].height
    assert drawn == plain + 4 * row
    assert reconstruct(capsys, folder, "--swap")[1].height == plain + 2 * row


def test_a_prefix_says_the_nearest_caption(folder: Path, capsys):
    (folder / "captions.txt").write_text("a red circle\na blue square\n")
    says = reconstruct(capsys, folder, "--captions", folder / "captions.txt")[0]["says"]
    assert set(says) == set(map(str, reconstruct(capsys, folder)[0]["prefixes"]))
    assert {caption for row in says.values() for caption in row} <= {"a red circle", "a blue square"}


def test_only_two_pictures_can_be_swapped(folder: Path, capsys):
    words = [folder / "tokenizer", folder / "a.png", "--swap"]
    status, _, err = seqtok(capsys, "tokenizer", "reconstruct", *words)
    assert status == 2
    assert "swapping takes two pictures, 1 are given" in err
