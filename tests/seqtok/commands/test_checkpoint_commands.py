"""seqtok checkpoint list, verify, export; and a run that finds its data changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seqtok.export.run import export_latents
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok.runs.train import train_run
from seqtok_core.foundation.files import sha256_file
from tests.seqtok.commands.test_commands import TINY, seqtok


def make_data(folder: Path, samples: int) -> Path:
    prepare({"train": ScenesSource("train", samples, 32)}, folder, PrepareConfig(name="scenes", size=32))
    train_vocabulary(folder, 400)
    return folder


def settings(data: Path, out: Path) -> list[str]:
    sizes = ["train.images=128", "train.batch=16", "train.warmup_images=16", "train.checkpoint_every=32"]
    return [*sizes, "train.threads=1", f"data.folder={data}", f"out={out}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A tokenizer and a sequence model over its latents, eight steps each."""
    root = tmp_path_factory.mktemp("runs")
    data = make_data(root / "scenes", 64)
    train_run(load_kind(TokenizerRun, TINY / "tiny-tokenizer.yaml", settings(data, root / "tokenizer")))
    export_latents(root / "tokenizer" / "model", data, root / "latents")
    train_run(load_kind(GeneratorRun, TINY / "tiny-generator.yaml", settings(root / "latents", root / "generator")))
    return root


def content(folder: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in folder.iterdir()}


def test_list_shows_every_checkpoint(runs, capsys):
    status, out, _ = seqtok(capsys, "checkpoint", "list", runs / "tokenizer")
    assert status == 0
    rows = [line.split() for line in out.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["6", "96"], ["8", "128"]]
    assert all(row[-1] == "whole" for row in rows[1:])
    assert "ZeRO 0 x 1" in out


def test_the_list_as_json_has_the_same_facts(runs, capsys, tmp_path):
    shutil.copytree(runs / "tokenizer", tmp_path / "run")
    os.truncate(tmp_path / "run" / "checkpoints" / "step_00000006" / "state.json", 3)
    status, out, _ = seqtok(capsys, "checkpoint", "list", tmp_path / "run", "--json")
    assert status == 0
    damaged, whole = json.loads(out)
    assert whole["path"] == str(tmp_path / "run" / "checkpoints" / "step_00000008")
    assert {key: whole[key] for key in ("step", "images", "problem")} == {"step": 8, "images": 128, "problem": None}
    assert whole["bytes"] > 1000
    assert "state.json: 3 bytes instead of" in damaged["problem"]
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    assert seqtok(capsys, "checkpoint", "list", tmp_path / "empty", "--json")[1] == "[]\n"


@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_export_equals_what_the_finished_run_wrote(kind, runs, capsys, tmp_path):
    status, out, err = seqtok(capsys, "checkpoint", "export", runs / kind, tmp_path / "model")
    assert status == 0, err
    assert "step_00000008" in out
    assert content(tmp_path / "model") == content(runs / kind / "model")


def test_raw_weights_and_an_earlier_checkpoint_are_others(runs, capsys, tmp_path):
    source, found = runs / "tokenizer" / "checkpoints", [content(runs / "tokenizer" / "model")["model.safetensors"]]
    for step, weights in [("step_00000006", "averaged"), ("step_00000008", "raw")]:
        status, _, err = seqtok(capsys, "checkpoint", "export", source / step, tmp_path / step, "--weights", weights)
        assert status == 0, err
        found.append(content(tmp_path / step)["model.safetensors"])
    assert len(set(found)) == 3
    part = load_file(source / "step_00000008" / "part_00000_of_00001.safetensors")
    model = load_file(tmp_path / "step_00000008" / "model.safetensors")
    name = next(name for name in model if f"weight:0:tokenizer.{name}" in part)
    assert (model[name].flatten() == part[f"weight:0:tokenizer.{name}"]).all()


def test_export_reads_data_from_elsewhere_and_overwrites_nothing(runs, capsys, tmp_path):
    shutil.copytree(runs / "tokenizer", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(runs / "scenes"), "/nowhere"))
    assert seqtok(capsys, "checkpoint", "export", tmp_path / "run", tmp_path / "a")[0] == 1
    words = ("checkpoint", "export", tmp_path / "run", tmp_path / "b", "--data", runs / "scenes")
    assert seqtok(capsys, *words)[0] == 0
    assert content(tmp_path / "b") == content(runs / "tokenizer" / "model")
    status, _, err = seqtok(capsys, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert "not empty" in err


def test_export_refuses_another_captions_model_or_other_latents(runs, capsys, tmp_path):
    """Of the same size, so that nothing else would tell: the model would sample with the wrong tokenizer."""
    shutil.copytree(runs / "scenes", tmp_path / "scenes")
    train_vocabulary(tmp_path / "scenes", 300, overwrite=True)
    words = ("checkpoint", "export", runs / "tokenizer", tmp_path / "a", "--data", tmp_path / "scenes")
    status, _, err = seqtok(capsys, *words)
    assert (status, err.count("seqtok: ")) == (1, 1), err
    assert "captions_sha256" in err
    other = settings(runs / "scenes", tmp_path / "tokenizer")
    train_run(load_kind(TokenizerRun, TINY / "tiny-tokenizer.yaml", [*other, "train.seed=1"]))
    export_latents(tmp_path / "tokenizer" / "model", runs / "scenes", tmp_path / "latents")
    words = ("checkpoint", "export", runs / "generator", tmp_path / "b", "--data", tmp_path / "latents")
    status, _, err = seqtok(capsys, *words)
    assert (status, err.count("seqtok: ")) == (1, 1), err
    assert "data_fingerprint" in err
    assert "--data" in err
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_export_goes_on_where_it_was_killed(runs, capsys, tmp_path):
    """What a killed writer left behind is no file of anybody's."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".model.safetensors.abcd1234.tmp").write_bytes(b"half")
    assert seqtok(capsys, "checkpoint", "export", runs / "tokenizer", tmp_path / "model")[0] == 0
    assert content(tmp_path / "model") == content(runs / "tokenizer" / "model")


def test_the_same_data_continue_the_run_by_whatever_path(runs, capsys, tmp_path, monkeypatch):
    """Absolute, relative, through a link, moved: the fingerprint says what they are."""
    for kind, data in [("tokenizer", "scenes"), ("generator", "latents")]:
        shutil.copytree(runs / kind, tmp_path / kind)
        shutil.copytree(runs / data, tmp_path / "moved" / data)
        os.symlink(runs / data, tmp_path / data)
        monkeypatch.chdir(runs)
        for folder in (data, f"./{data}/../{data}", tmp_path / data, tmp_path / "moved" / data):
            words = settings(folder, tmp_path / kind)
            if kind == "tokenizer":
                words.append(f"data.captions={runs / 'scenes' / 'captions.model'}")
            status, _, err = seqtok(capsys, kind, "train", TINY / f"tiny-{kind}.yaml", *words)
            assert status == 0, err
            assert "last from step_00000008" in err
        assert seqtok(capsys, "checkpoint", "export", tmp_path / kind, tmp_path / f"{kind} model")[0] == 0
        shutil.rmtree(tmp_path / "moved")  # where the last start found them
        assert seqtok(capsys, "checkpoint", "export", tmp_path / kind, tmp_path / f"{kind} again")[0] == 1


def test_a_moved_sequence_model_is_exported_with_its_tokenizers_new_place(runs, capsys, tmp_path):
    out, moved = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(runs / "generator", out)
    said = yaml.safe_load((out / "config.yaml").read_text())
    (out / "config.yaml").write_text(yaml.safe_dump({**said, "tokenizer": "gone/model", "reader": "gone/reader"}))
    words = ("checkpoint", "export", out, tmp_path / "model")
    status, _, err = seqtok(capsys, *words)
    assert (status, err.count("\n")) == (1, 1)
    assert "--tokenizer" in err
    shutil.copytree(runs / "tokenizer" / "model", moved)
    status, _, err = seqtok(capsys, *words, "--tokenizer", moved)
    assert status == 0, err
    assert content(tmp_path / "model") == content(runs / "generator" / "model")
    status, _, err = seqtok(capsys, "checkpoint", "export", runs / "tokenizer", tmp_path / "x", "--tokenizer", moved)
    assert status == 2
    assert "leave out --tokenizer" in err


@pytest.mark.parametrize("kind", ["file", "link", "used"])
def test_a_model_is_not_written_over_what_is_no_new_folder(kind, runs, capsys, tmp_path):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("precious")
    elif kind == "link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("precious")
    for words in (("checkpoint", "export", runs / "tokenizer"), ("tokenizer", "lossless", runs / "scenes")):
        status, _, err = seqtok(capsys, *words, out)
        assert (status, err.splitlines()[-1].startswith(f"seqtok: {out}: ")) == (2, True)
        assert "Traceback" not in err


def test_verify_names_the_damaged_file(runs, capsys, tmp_path):
    assert seqtok(capsys, "checkpoint", "verify", runs / "tokenizer")[0] == 0
    shutil.copytree(runs / "tokenizer", tmp_path / "run")
    part = tmp_path / "run" / "checkpoints" / "step_00000008" / "part_00000_of_00001.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(bytes(data))
    status, out, err = seqtok(capsys, "checkpoint", "verify", tmp_path / "run")
    assert status == 1
    assert "step_00000006: whole" in out
    assert f"{part.name}: its content has changed" in out
    assert "1 of 2 checkpoints damaged" in err
    assert seqtok(capsys, "checkpoint", "verify", part.parent)[0] == 1
    os.truncate(part, 1000)  # seen by the list without reading
    assert "1000 bytes instead of" in seqtok(capsys, "checkpoint", "list", tmp_path / "run")[1].replace("\n", " ")


@pytest.mark.parametrize("words", [("list", "nothing"), ("verify", "nothing"), ("export", "nothing", "out")])
def test_a_path_that_holds_nothing_is_one_clear_line(words, capsys, tmp_path):
    status, _, err = seqtok(capsys, "checkpoint", words[0], *(tmp_path / word for word in words[1:]))
    assert (status, err.count("\n")) == (1, 1)
    assert "nothing: no such" in err


def test_data_that_changed_between_stop_and_resume_are_refused(runs, capsys, tmp_path):
    shutil.copytree(runs / "scenes", tmp_path / "scenes")
    words = ("tokenizer", "train", TINY / "tiny-tokenizer.yaml", *settings(tmp_path / "scenes", tmp_path / "run"))
    assert seqtok(capsys, *words)[0] == 0
    shutil.rmtree(tmp_path / "scenes")
    make_data(tmp_path / "scenes", 65)
    status, _, err = seqtok(capsys, *words)
    assert (status, err.count("\n")) == (1, 1)
    assert "the data have changed" in err
    assert "--overwrite" in err
