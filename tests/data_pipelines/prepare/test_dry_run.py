"""`seqtok data prepare`: the options reach the source; a dry run shows the plan and writes nothing."""

from __future__ import annotations

import json

import pytest

from data_pipelines.prepare.preview import bytes_per_sample, preview
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.sources.drawn import ScenesSource
from data_pipelines.sources.open import SourceConfig, open_source
from tests.data_pipelines.toy import jsonl_folder
from tests.seqtok.commands.test_commands import seqtok


@pytest.fixture
def folder(tmp_path):
    return jsonl_folder(tmp_path / "set", 30, title="A dog. It runs.")


def test_a_dry_run_shows_ten_samples_and_writes_nothing(capsys, folder, tmp_path):
    (folder / "images/p 0.png").write_bytes(b"<html>")
    words = ["data", "prepare", folder, tmp_path / "out", "--size", 8, "--val-share", 0.3, "--label-field", "group"]
    status, out, err = seqtok(capsys, *words, "--dry-run")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert "kind: folder" in lines
    counts = {split: len(source) for split, source in open_source(folder, SourceConfig(val_share=0.3)).items()}
    for split, count in counts.items():
        assert any(f"would write split {split}, {count} samples in 1 shards, about" in line for line in lines)
    shown = [line for line in lines if line.startswith(("train images/", "val images/"))]
    assert len(shown) == 10
    assert any(line.endswith("images/p 0.png: 6 bytes") for line in shown), "the first sample of all is shown"
    assert "  BAD: not an image" in lines
    assert sum(" RGB PNG, " in line for line in shown) == 9
    assert "  0 level 0 of picture 29" in lines
    assert "  group=b" in lines
    assert not (tmp_path / "out").exists()


def test_what_is_shown_is_what_is_written(folder):
    source = open_source(folder, SourceConfig())["train"]
    shown = preview({"train": source}, PrepareConfig(size=8))
    pairs = list(source.pairs(0, 30))
    assert [item.captions for item in shown] == [p.captions for p in pairs if p.source in {i.source for i in shown}]
    assert [shown[0].source, shown[-1].source] == [pairs[0].source, pairs[-1].source]
    assert bytes_per_sample(shown) % 512 == 0 or len({item.bytes for item in shown}) > 1
    few = preview({"train": ScenesSource("train", 3, 8), "val": ScenesSource("val", 50, 8)}, PrepareConfig(size=8))
    assert [item.split for item in few] == ["train"] * 3 + ["val"] * 5
    assert few[0].picture == "8 x 8 RGB, drawn"


def test_options_reach_the_data_set(capsys, folder, tmp_path):
    words = ["data", "prepare", folder, tmp_path / "out", "--size", 8, "--captions-field", "group"]
    words += ["--captions-field", "a picture in group {group}", "--captions-field", "title", "--pyramid", "sentences"]
    words += ["--max-levels", 2, "--where", "group=a", "--where", "number<20", "--label-field", "number"]
    words += ["--min-characters", 2, "--key-field", "number", "--name", "toy"]
    status, out, err = seqtok(capsys, *words)
    assert (status, "10 samples" in out) == (0, True), err
    assert "train: 15 samples left out by group=a" in out
    assert "train: 5 samples left out by number<20" in out
    manifest = read_manifest(tmp_path / "out")
    assert manifest.splits["train"].samples == 10
    assert manifest.splits["train"].notes["short captions left out"] == 10
    assert manifest.levels == 3
    index = json.loads((tmp_path / "out" / manifest.splits["train"].shards[0].index_file).read_text())
    assert [sample[0] for sample in index["samples"]] == [str(n) for n in range(0, 20, 2)]
    status, _, err = seqtok(capsys, "data", "prepare", folder, tmp_path / "x", "--captions-field", "titel")
    assert (status, err.count("\n")) == (2, 1)
    assert "captions.jsonl: no field 'titel' (--captions-field); did you mean title?" in err
