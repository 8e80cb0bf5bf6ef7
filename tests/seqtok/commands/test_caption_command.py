"""seqtok generator caption and edit: words from pictures, pictures changed by words; a wrong wish is one message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ar_model import GeneratorConfig, SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.scenes import make_scene, render
from seq_tokenizer import SeqTokenizer
from tests.seqtok.commands.test_commands import save_tokenizer, seqtok


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sequence model with random words and the tokenizer of its latents, both untrained."""
    root = tmp_path_factory.mktemp("models")
    captions = CaptionTokenizer.train(["a red circle", "a blue square"], root / "captions.model", 300)
    tokenizer = SeqTokenizer.from_pretrained(save_tokenizer(root / "tokenizer", root))
    torch.manual_seed(0)
    sequence = {"caption_levels": 2, "caption_prefixes": 0.5}
    values = {"width": 16, "depth": 1, "heads": 2, "head": {"width": 16, "depth": 1}, "sequence": sequence}
    model = SeqGenerator(GeneratorConfig.parse(values), tokenizer.spec, captions)
    torch.nn.init.normal_(model.backbone.text_out.weight)
    model.save_pretrained(root / "generator")
    return root / "generator", root / "tokenizer"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        Image.fromarray(render(make_scene(0, i), 32)).save(path)
    return paths


def test_every_picture_has_its_line_and_json_what_was_asked(models, files: list[Path], capsys):
    status, printed, err = seqtok(capsys, "generator", "caption", *models, *files, "--beams", 2)
    assert status == 0, err
    lines = printed.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(file) for file in files]
    words = ["--level", "coarse", "--prefix", 1, "--temperature", 1.0, "--top-p", 0.9, "--seed", 3, "--json"]
    status, printed, err = seqtok(capsys, "generator", "caption", *models, *files, *words)
    assert status == 0, err
    found = json.loads(printed)
    assert found["asked"]["level"] == "coarse"
    assert found["asked"]["prefix"] == 1
    assert found["asked"]["caption"]["top_p"] == 0.9
    assert found["model_id"] == SeqGenerator.from_pretrained(models[0]).model_id
    assert len(found["captions"]) == 2
    again = json.loads(seqtok(capsys, "generator", "caption", *models, *files, *words)[1])
    assert again == found


def test_the_likeliest_of_given_captions_is_named(models, files: list[Path], capsys, tmp_path: Path):
    choices = tmp_path / "classes.txt"
    choices.write_text("a red circle\na blue square\n", encoding="utf-8")
    status, printed, err = seqtok(capsys, "generator", "caption", *models, *files, "--among", choices, "--json")
    assert status == 0, err
    found = json.loads(printed)
    for caption, scores in zip(found["captions"], found["log_p"], strict=True):
        assert set(scores) == {"a red circle", "a blue square"}
        assert caption == max(scores, key=scores.get)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prefix", 99], "prefix=99: choose from 1 to"),
        (["--level", "blurry"], "level=blurry: levels of captions that this model knows: 0 (coarse) to 1 (fine)"),
        (["--beams", 2, "--temperature", 1.0], "beams=2 look for the likeliest caption"),
        (["--among", "missing.txt"], "missing.txt: prompts cannot be read"),
    ],
)
def test_what_cannot_be_said_is_one_message(models, files: list[Path], capsys, words: list[object], message: str):
    status, _, err = seqtok(capsys, "generator", "caption", *models, *files, *words)
    assert status != 0
    assert message in err
    assert "Traceback" not in err


def test_a_model_that_never_wrote_says_so(models, files: list[Path], capsys, tmp_path: Path):
    model = SeqGenerator.from_pretrained(models[0])
    torch.nn.init.zeros_(model.backbone.text_out.weight)
    model.save_pretrained(tmp_path / "mute")
    status, _, err = seqtok(capsys, "generator", "caption", tmp_path / "mute", models[1], *files)
    assert status != 0
    assert "has not learnt to write" in err


def test_an_edit_has_a_row_per_prompt_and_number_kept(models, files: list[Path], capsys, tmp_path: Path):
    out = tmp_path / "edited.png"
    words = ["--prompt", "a circle", "--prompt", "a square", "--keep", 0, "--keep", 1, "--drawings", 2, "--steps", 2]
    status, printed, err = seqtok(capsys, "generator", "edit", *models, files[0], *words, "--out", out, "--json")
    assert status == 0, err
    used = json.loads(printed)
    assert used["prompts"] == ["a circle", "a square"]
    assert used["asked"]["keep"] == [0, 1]
    with Image.open(out) as picture:
        assert picture.height > picture.width * 4 / 5 > 0, "four rows of four pictures below their names"
    status, _, err = seqtok(capsys, "generator", "edit", *models, files[0], "--keep", 99)
    assert status != 0
    assert "keep=99: choose from 0 to" in err
