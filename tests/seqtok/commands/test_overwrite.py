"""--overwrite, of every command that has it: what seqtok did not write stays, byte for byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.seqtok.commands.test_commands import TINY, data, seqtok, tokenizer  # noqa: F401 (fixtures)


def scenes(out: Path, *words: object) -> list[object]:
    return ["data", "scenes", out, "--train", 6, "--val", 0, "--test", 0, "--size", 32, *words]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


FOREIGN = ["cc3m-train-000000.tar", "cc3m-train-000000.index.json", "dataset.json", "captions.model", "theirs.tar"]


@pytest.mark.parametrize("name", [*FOREIGN, "prepare.json"])
@pytest.mark.parametrize("command", ["data scenes", "data glyphs", "data prepare", "tokenizer export"])
def test_a_folder_without_our_plan_is_not_cleared(command, name, capsys, data, tokenizer, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"mine": 1}')
    words = {
        "data scenes": scenes(out),
        "data glyphs": ["data", "glyphs", out, "--train", 6, "--val", 0, "--test", 0],
        "data prepare": ["data", "prepare", data, out],
        "tokenizer export": ["tokenizer", "export", tokenizer, data, out],
    }[command]
    status, _, err = seqtok(capsys, *words, "--overwrite")
    assert (status, err.count("\n")) == (1, 1), err
    assert "did not write" in err
    assert content(out) == {name: b'{"mine": 1}'}


def test_foreign_files_beside_our_shards_stay(capsys, tmp_path):
    out = tmp_path / "out"
    assert seqtok(capsys, *scenes(out))[0] == 0
    shard = next(out.glob("*-train-000000.tar"))
    mine = ["notes.txt", "cc3m-train-000000.parquet", ".cache.tmp", "venv/bin/python"]
    for name in mine:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = shard.read_bytes()
    assert seqtok(capsys, *scenes(out, "--seed", 5, "--overwrite"))[0] == 0
    assert shard.read_bytes() != before
    assert {name: (out / name).read_text() for name in mine} == dict.fromkeys(mine, "mine")


def test_the_folder_we_work_in_is_not_cleared(capsys, tmp_path, monkeypatch):
    assert seqtok(capsys, *scenes(tmp_path / "out"))[0] == 0
    monkeypatch.chdir(tmp_path / "out")
    before = content(tmp_path)
    for out in (".", tmp_path, "/"):
        status, _, err = seqtok(capsys, *scenes(Path(out), "--seed", 5, "--overwrite"))
        assert (status, err.count("\n")) == (2, 1), err
        assert "--overwrite does not clear" in err
    assert content(tmp_path) == before


def test_what_is_read_is_not_overwritten(capsys, tokenizer, tmp_path, monkeypatch):  # noqa: F811
    """Whatever it is called by: with its shards removed there would be nothing to read."""
    assert seqtok(capsys, *scenes(tmp_path / "out"))[0] == 0
    assert seqtok(capsys, "data", "text", tmp_path / "out", "--vocab", 300)[0] == 0
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in (["data", "prepare", "out"], ["tokenizer", "export", tokenizer, "out"]):
        for out in ("out", tmp_path / "out" / ".." / "out"):
            status, _, err = seqtok(capsys, *words, out, "--overwrite")
            assert (status, err.count("\n")) == (1, 1), err
            assert "is what is read" in err
    assert content(tmp_path) == before


@pytest.mark.parametrize("form", ["text", "parquet", "folder"])
def test_a_file_that_no_export_wrote_is_not_replaced(form, capsys, data, tokenizer, tmp_path):  # noqa: F811
    out = tmp_path / "mine.parquet"
    if form == "folder":
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    elif form == "text":
        out.write_text("mine")
    else:
        pq.write_table(pa.table({"mine": [1]}), out)
    before = content(tmp_path)
    words = ["tokenizer", "export", tokenizer, data, out, "--what", "embeddings", "--overwrite"]
    status, _, err = seqtok(capsys, *words)
    assert (status, err.count("\n")) == (1, 1), err
    assert "did not write this" in err
    assert content(tmp_path) == before


def test_a_captions_model_does_not_replace_a_file_of_another_kind(capsys, data, tmp_path):  # noqa: F811
    (tmp_path / "notes.txt").write_text("mine")
    words = ["data", "text", data, "--vocab", 300, "--out", tmp_path / "notes.txt", "--overwrite"]
    assert seqtok(capsys, *words)[0] == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_demo_clears_what_a_demo_made(tmp_path):
    """Each part as its own command would; the whole demo is tested in tests/seqtok/runs/test_chain.py."""
    from seqtok.runs.demo.chain import _clear
    from seqtok_core.foundation import run_record
    from seqtok_core.foundation.errors import ConfigError

    out = tmp_path / "demo"
    for part in ("data", "tokenizer", "generator", "latents", "reader", "report"):
        (out / part).mkdir(parents=True)
        (out / part / "notes.txt").write_text("mine")
    (out / "stages.json").write_text("{}")
    (out / "reader" / "config.json").write_text("{}")
    (out / "data" / "prepare.json").write_text(json.dumps({"config": {"name": "scenes"}, "splits": {}}))
    (out / "data" / "scenes-train-000000.tar").write_text("")
    before = content(out)
    with pytest.raises(ConfigError, match="holds files but no run"):
        _clear(out)
    assert content(out) == before  # all parts are looked at before the first is removed
    for part in ("tokenizer", "generator"):
        run_record.write_record(out / part, overwrite=False)
        (out / part / "config.yaml").write_text("a: 1")
    _clear(out)
    kept = {name: text for name, text in content(out).items() if not name.endswith(("run.lock", "run.json"))}
    assert kept == {name: text for name, text in before.items() if name.endswith("notes.txt")}


def test_every_command_with_overwrite_is_tried_here():
    """A new one must be added to the tests above."""
    import typer
    from typer.core import TyperGroup

    from seqtok.cli import app

    def named(command, words=()):
        if isinstance(command, TyperGroup):
            return {name for word, part in command.commands.items() for name in named(part, (*words, word))}
        return {" ".join(words)} if any(p.name == "overwrite" for p in command.params) else set()

    assert named(typer.main.get_command(app)) == {
        "train", "tokenizer train", "generator train",  # tests/seqtok_core/training/test_run_folder.py
        "demo", "data scenes", "data glyphs", "data prepare", "data text", "tokenizer export",
    }  # fmt: skip


def test_a_training_refuses_a_folder_of_somebody_else(capsys, data, tmp_path):  # noqa: F811
    (tmp_path / "p" / "model").mkdir(parents=True)
    (tmp_path / "p" / "config.yaml").write_text("a: 1")
    (tmp_path / "p" / "model" / "net.py").write_text("mine")
    before = content(tmp_path)
    words = ["tokenizer", "train", TINY / "tiny-tokenizer.yaml", f"data.folder={data}", f"out={tmp_path / 'p'}"]
    status, _, err = seqtok(capsys, *words, "--overwrite")
    assert (status, err.count("seqtok: ")) == (2, 1), err
    assert "holds files but no run" in err
    assert content(tmp_path) == before
    shutil.rmtree(tmp_path / "p")
