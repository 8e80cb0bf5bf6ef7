"""seqtok generator sample: prompts from words and from a file, and what was used as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ar_model import GeneratorConfig, SampleConfig, SeqGenerator
from ar_model.sampling import SearchConfig
from data_pipelines.captions.tokenizer import CaptionTokenizer
from seq_tokenizer import SeqTokenizer
from seqtok.pictures.verifier import prompt_score
from seqtok_core.foundation.errors import ConfigError
from tests.seqtok.commands.test_commands import save_tokenizer, seqtok


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sequence model and the tokenizer of its latents, both untrained."""
    root = tmp_path_factory.mktemp("models")
    captions = CaptionTokenizer.train(["a red circle", "a blue square"], root / "captions.model", 300)
    tokenizer = SeqTokenizer.from_pretrained(save_tokenizer(root / "tokenizer", root))
    torch.manual_seed(0)
    config = GeneratorConfig.parse({"width": 16, "depth": 1, "heads": 2, "head": {"width": 16, "depth": 1}})
    SeqGenerator(config, tokenizer.spec, captions).save_pretrained(root / "generator")
    return root / "generator", root / "tokenizer"


def test_prompts_come_from_words_and_from_a_file(models, capsys, tmp_path: Path):
    file, out = tmp_path / "prompts.txt", tmp_path / "samples.png"
    file.write_text("\ufeffa blue square\n\n  a red circle \n", encoding="utf-8")
    words = ["--prompt", "a circle", "--prompts", file, "--out", out, "--steps", 3, "--guidance", 2.0, "--json"]
    status, printed, err = seqtok(capsys, "generator", "sample", *models, *words)
    assert status == 0, err
    used = json.loads(printed)
    assert used["prompts"] == ["a circle", "a blue square", "a red circle"]
    steps = {kind: {"steps": 3} for kind in ("flow", "mean_flow", "diffusion")}
    assert used["sample"] == SampleConfig().changed(guidance=2.0, **steps).model_dump(mode="json")
    generator = SeqGenerator.from_pretrained(models[0])
    assert used["tokenizer_id"] == generator.spec.tokenizer_id
    assert used["model_id"] == generator.model_id
    assert used["prefix"] is None
    assert used["num_tokens"] == used["prefixes"][-1]
    with Image.open(out) as picture:
        assert picture.height > picture.width / len(used["prefixes"])


def test_what_is_not_said_is_the_settings_own_default(models, capsys, tmp_path: Path):
    words = ["--prompt", "a circle", "--prefix", 1, "--out", tmp_path / "x.png", "--json"]
    status, printed, err = seqtok(capsys, "generator", "sample", *models, *words)
    assert status == 0, err
    assert json.loads(printed)["sample"] == SampleConfig().model_dump(mode="json")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read (No such file"), (b"", "holds no prompt"), (b"\xff\xfe\x00", "not UTF-8 text")],
)
def test_a_file_without_prompts_is_one_message(models, capsys, tmp_path: Path, content: bytes | None, message: str):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    status, _, err = seqtok(capsys, "generator", "sample", *models, "--prompts", file)
    assert status != 0
    assert message in err
    assert "Traceback" not in err


def test_no_prompt_at_all_is_one_message(models, capsys):
    status, _, err = seqtok(capsys, "generator", "sample", *models)
    assert status == 2
    assert "--prompts FILE" in err


def test_a_search_asks_the_tokenizers_own_text_space(models, capsys, tmp_path: Path):
    words = ["--prompt", "a red circle", "--steps", 2, "--out", tmp_path / "x.png", "--json"]
    status, printed, err = seqtok(capsys, "generator", "sample", *models, *words, "--beams", 2, "--candidates", 2)
    assert status == 0, err
    assert json.loads(printed)["search"] == {"candidates": 2, "beams": 2}


def test_a_tokenizer_without_captions_cannot_choose(models):
    generator, tokenizer = SeqGenerator.from_pretrained(models[0]), SeqTokenizer.from_pretrained(models[1])
    bare = SeqTokenizer(tokenizer.config.model_copy(update={"text": None}))
    with pytest.raises(ConfigError, match="trained without captions and cannot say which drawing fits"):
        prompt_score(generator, bare, ["a red circle"], SearchConfig(candidates=2))
    assert prompt_score(generator, bare, ["a red circle"], SearchConfig()) is None
    score = prompt_score(generator, tokenizer, ["a red circle", "a blue square"], SearchConfig(beams=2))
    assert score is not None
    latents = tokenizer.encode(torch.rand(2, 3, 32, 32) * 2 - 1)
    assert score(latents).shape == score(latents[:, :1]).shape == (2,)
    assert float(score(latents).abs().max()) <= 1.0 + 1e-5
