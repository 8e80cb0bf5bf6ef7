"""seqtok tokenizer lossless: from image shards to a model folder that exports and decodes, and its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import read_split
from data_pipelines.samples import to_model
from seq_tokenizer import SeqTokenizer
from seqtok.export.run import export_latents
from tests.seqtok.commands.test_commands import seqtok


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from data_pipelines.prepare.run import prepare
    from data_pipelines.prepare.settings import PrepareConfig
    from data_pipelines.reading.vocabulary import train_vocabulary
    from data_pipelines.sources.drawn import ScenesSource

    folder = tmp_path_factory.mktemp("data") / "scenes"
    prepare({"train": ScenesSource("train", 24, 16, 0)}, folder, PrepareConfig(name="scenes", size=16, form="png"))
    train_vocabulary(folder, 320)
    return folder


def test_a_lossless_model_folder_serves_an_export(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed, err = seqtok(
        capsys, "tokenizer", "lossless", data, tmp_path / "model", "--patch-size", 8, "--order", "snake"
    )
    assert status == 0, err
    assert printed.strip() == str(tmp_path / "model")
    tokenizer = SeqTokenizer.from_pretrained(tmp_path / "model")
    pixels = to_model(read_split(data, "train", CaptionTokenizer.load(data / "captions.model")).images)
    latents = tokenizer.encode(pixels)
    assert torch.equal(tokenizer.decode(latents), pixels)
    torch.testing.assert_close(
        tokenizer.spec.normalise(latents).std(0, correction=0).mean(), torch.tensor(1.0), atol=0.05, rtol=0
    )
    export_latents(tmp_path / "model", data, tmp_path / "latents")
    assert (tmp_path / "latents" / "captions.model").is_file()


def test_what_cannot_be_cut_or_written_is_one_message(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["--patch-size", 5], "patch_size=5 does not divide image_size=16"),
        (["--order", "spirale"], "spiral"),
    ):
        status, _, err = seqtok(capsys, "tokenizer", "lossless", data, tmp_path / "model", *words)
        assert status != 0
        assert message in err
        assert "Traceback" not in err
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.txt").write_text("mine")
    status, _, err = seqtok(capsys, "tokenizer", "lossless", data, tmp_path / "model")
    assert status != 0
    assert "is not empty" in err
