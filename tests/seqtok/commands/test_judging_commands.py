"""seqtok evaluate understanding and resampling: from models and data to results; a wrong wish is one message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ar_model import GeneratorConfig, SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seq_tokenizer import SeqTokenizer
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.export.run import export_latents
from seqtok.runs.judge import resampling
from tests.seqtok.commands.test_commands import data, save_tokenizer, seqtok  # noqa: F401 (a fixture)

ASKED = ["--fit-limit", 60, "--limit", 20, "--scenes", 4]


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:  # noqa: F811
    """A sequence model with random words and the tokenizer of its latents, both untrained."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = SeqTokenizer.from_pretrained(save_tokenizer(root / "tokenizer", data))
    torch.manual_seed(0)
    values = {"width": 16, "depth": 2, "heads": 2, "head": {"width": 16, "depth": 1}}
    values["sequence"] = {"caption_levels": 4}
    model = SeqGenerator(GeneratorConfig.parse(values), tokenizer.spec, CaptionTokenizer.load(data / "captions.model"))
    torch.nn.init.normal_(model.backbone.text_out.weight)
    model.save_pretrained(root / "generator")
    return root / "generator", root / "tokenizer"


def scales_of(models: tuple[Path, Path], folder: Path) -> Path:
    """A sequence model of the same latents that draws one and then three at once."""
    known = SeqGenerator.from_pretrained(models[0])
    values = {"width": 16, "depth": 1, "heads": 2, "head": {"width": 16, "depth": 1}}
    values["sequence"] = {"kind": "scales", "groups": [1, 3]}
    SeqGenerator(GeneratorConfig.parse(values), known.spec, known.captions).save_pretrained(folder)
    return folder


def understanding(capsys, *words: object, out: Path) -> dict:
    status, printed, err = seqtok(capsys, "evaluate", "understanding", *words, *ASKED, "--out", out)
    assert status == 0, err
    assert "left out: unseen" in printed
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def test_pictures_and_their_exported_latents_are_understood_alike(capsys, data, models, tmp_path):  # noqa: F811
    """Latents are stored in half precision."""
    pictures = understanding(capsys, *models, data, out=tmp_path / "pictures")
    found = pictures["understanding"]
    assert list(found["levels"]) == ["count", "shapes", "colors", "details"]
    assert list(pictures["zero_shot"])[:1] == ["count"]
    assert pictures["zero_shot"]["count"]["candidates"] == 3, "wordings of one meaning are one"
    assert "captions" in pictures
    assert "48 pictures" in pictures["protocol"]["understanding"]
    assert "12 other pictures" in pictures["protocol"]["understanding"]
    export_latents(models[1], data, tmp_path / "exported")
    latents = understanding(capsys, *models, tmp_path / "exported", out=tmp_path / "latents")
    assert latents["zero_shot"]["count"]["candidates"] == 3
    for label, row in found["labels"].items():
        other = latents["understanding"]["labels"][label]
        assert other["chance"] == row["chance"]
        assert abs(other["latents"]["value"] - row["latents"]["value"]) <= 0.1


@pytest.mark.slow
def test_layers_are_chosen_on_val_where_there_is_one(capsys, models, tmp_path):
    folder = tmp_path / "scenes"
    sources = {split: ScenesSource(split, count, 32) for split, count in (("train", 60), ("val", 15), ("test", 20))}
    prepare(sources, folder, PrepareConfig(name="scenes", size=32))
    train_vocabulary(folder, 400)
    said = understanding(capsys, *models, folder, out=tmp_path / "val")["protocol"]["understanding"]
    assert "fitted on 60 pictures" in said
    assert "15 other pictures" in said
    said = understanding(capsys, *models, folder, "--split", "val", out=tmp_path / "cut")["protocol"]["understanding"]
    assert "12 other pictures" in said, "val is judged, so that a part of the pictures to fit on is held out"
    said = understanding(capsys, *models, folder, "--split", "val", "--val-split", "test", out=tmp_path / "named")
    assert "20 other pictures" in said["protocol"]["understanding"]


def test_what_cannot_be_judged_is_one_message(capsys, data, models, tmp_path):  # noqa: F811
    def said(*words: object) -> str:
        status, _, err = seqtok(capsys, "evaluate", "understanding", *words)
        assert status != 0
        assert "Traceback" not in err
        return err

    assert "what is fitted on cannot be judged" in said(*models, data, "--split", "train")
    assert "neither fitted on nor judged" in said(*models, data, "--val-split", "test")
    assert "no split 'dev'" in said(*models, data, "--split", "dev")
    export_latents(save_tokenizer(tmp_path / "other", data, seed=1), data, tmp_path / "latents")
    assert "comes from tokenizer" in said(*models, tmp_path / "latents", *ASKED)
    assert "--candidates" in said(*models, data, "--candidates", 1)
    assert "nowhere" in said(*models, tmp_path / "nowhere")


def test_data_that_says_nothing_is_refused_and_what_no_grammar_reads_is_named(capsys, data, models, tmp_path):  # noqa: F811
    """The same pictures under another name, then without their labels, asked of a model that does not write."""
    folder, words = tmp_path / "others", ["--fit-limit", 30, "--limit", 10]
    shutil.copytree(data, folder)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    (folder / "dataset.json").write_text(json.dumps({**content, "name": "others"}), encoding="utf-8")
    status, printed, err = seqtok(capsys, "evaluate", "understanding", *models, folder, *words)
    assert status == 0, err
    assert "left out: captions that it writes: only those of drawn scenes" in printed
    bare = {"labels": [], "classes": {}, "level_names": [], "level_labels": []}
    (folder / "dataset.json").write_text(json.dumps({**content, **bare}), encoding="utf-8")
    mute = SeqGenerator.from_pretrained(models[0])
    torch.nn.init.zeros_(mute.backbone.text_out.weight)
    mute.save_pretrained(tmp_path / "mute")
    status, _, err = seqtok(capsys, "evaluate", "understanding", tmp_path / "mute", models[1], folder, *words)
    assert status != 0
    assert "holds nothing that understanding is judged by (captions: the model has not learnt to write)" in err
    assert "Traceback" not in err


def test_resampling_leaves_results_and_pictures_of_a_report(capsys, models, tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(resampling, "load_or_train_reader", lambda folder, config: SceneReader(ReaderConfig().width))
    out, words = tmp_path / "out", ["--scenes", 5, "--drawings", 2, "--steps", 2]
    asked = ["evaluate", "resampling", *models, "--reader", tmp_path / "reader"]
    status, printed, err = seqtok(capsys, *asked, *words, "--out", out)
    assert status == 0, err
    assert str(out / "redrawn.png") in printed
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    length = str(SeqTokenizer.from_pretrained(models[1]).spec.length)
    assert list(found["resampling"]["model"]["psnr"]) == list(found["forced"]["count"]) == ["0", "1", "2", length]
    assert found["resampling"]["model"]["std"][length] == 0.0
    assert "flow with steps 2" in found["protocol"]["resampling"]
    status, _, err = seqtok(capsys, "report", out, "--out", tmp_path / "report")
    assert status == 0, err
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "What do the first tokens fix?" in page
    grouped = ["evaluate", "resampling", scales_of(models, tmp_path / "grouped"), models[1], "--reader", tmp_path]
    status, _, err = seqtok(capsys, *grouped, *words, "--out", tmp_path / "groups")
    assert status == 0, err
    found = json.loads((tmp_path / "groups" / "results.json").read_text(encoding="utf-8"))
    assert list(found["forced"]["count"]) == ["0", "1", length], "groups are kept whole"
    status, _, err = seqtok(capsys, *asked, "--drawings", 1)
    assert status != 0
    assert "--drawings" in err
