"""What of a run is explored, and the refusals of the command: each one message that says the way out."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest

from seqtok.explorer.found import find_parts
from seqtok.explorer.studio import Studio
from seqtok_core.foundation.errors import ConfigError
from tests.seqtok.commands.test_commands import seqtok
from tests.seqtok.explorer.toy import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


def test_a_demo_holds_all_parts(run: Path):
    parts = find_parts(str(run))
    assert (parts.tokenizer, parts.generator) == (str(run / "tokenizer" / "model"), str(run / "generator" / "model"))
    assert (parts.data, parts.report, parts.notes) == (run / "data", run / "report" / "report.html", [])


def test_a_run_and_its_model_folder_are_the_same_tokenizer(run: Path):
    for folder in (run / "tokenizer", run / "tokenizer" / "model"):
        parts = find_parts(str(folder))
        assert (parts.tokenizer, parts.generator, parts.report) == (str(run / "tokenizer" / "model"), None, None)


def test_a_run_names_its_data(run: Path, tmp_path: Path):
    own = tmp_path / "tokenizer"
    own.mkdir()
    (own / "model").symlink_to(run / "tokenizer" / "model")
    (own / "config.yaml").write_text(f"kind: tokenizer\ndata:\n  folder: {run / 'data'}\n")
    assert find_parts(str(own)).data == run / "data"
    (own / "config.yaml").write_text(f"kind: tokenizer\ndata:\n  folder: {tmp_path / 'gone'}\n")
    parts = find_parts(str(own))
    assert parts.data is None
    assert "gone: no prepared data set" in parts.notes[0]


def test_models_that_are_named_go_before_those_found(run: Path):
    named = find_parts(str(run), generator="other/model")
    assert (named.tokenizer, named.generator) == (str(run / "tokenizer" / "model"), "other/model")
    both = find_parts(None, str(run / "tokenizer" / "model"), str(run / "generator" / "model"))
    assert Studio.load(both).generator is not None
    from_generator = find_parts(str(run / "generator"), str(run / "tokenizer" / "model"))
    assert from_generator.generator == str(run / "generator" / "model")


def test_what_is_missing_is_said(run: Path, tmp_path: Path):
    (tmp_path / "tokenizer").symlink_to(run / "tokenizer")
    (tmp_path / "generator").mkdir()
    assert "no sequence model yet" in find_parts(str(tmp_path)).notes[0]
    with pytest.raises(ConfigError, match="a sequence model; name the tokenizer of its latents"):
        find_parts(str(run / "generator"))
    with pytest.raises(ConfigError, match="nothing to explore"):
        find_parts(None)


def test_data_without_a_held_out_split_is_said(run: Path, tmp_path: Path):
    from data_pipelines.prepare.run import prepare
    from data_pipelines.prepare.settings import PrepareConfig
    from data_pipelines.sources.drawn import ScenesSource

    (tmp_path / "tokenizer").symlink_to(run / "tokenizer")
    prepare({"train": ScenesSource("train", 4, 16)}, tmp_path / "data", PrepareConfig(name="scenes", size=16))
    parts = find_parts(str(tmp_path))
    assert Studio.load(parts).held_out is None
    assert "neither a test nor a val split" in parts.notes[-1]


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    status, _, err = seqtok(capsys, "explore", "--no-open", *words)
    assert status != 0
    assert "Traceback" not in err
    return err


def test_refusals_are_one_message(run: Path, tmp_path: Path, capsys):
    assert "no such model folder" in refusal(capsys, tmp_path / "missing")
    assert "not a model folder" in refusal(capsys, tmp_path)
    assert "a sequence model; name the tokenizer" in refusal(capsys, run / "generator")
    (tmp_path / "config.yaml").write_text("kind: tokenizer\n")
    assert "its training has not ended" in refusal(capsys, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "choose another with --port" in refusal(capsys, run, "--port", taken.getsockname()[1])


def test_without_the_extra_the_message_says_what_to_install(run: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "fastapi" else found(name, *a))
    assert 'pip install "seqtok[explorer]"' in refusal(capsys, run)
