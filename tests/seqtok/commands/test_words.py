"""Fields and functions that rooms below name become what the user of a command can type."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pytest

from seqtok import cli
from seqtok.cli import app
from seqtok.commands.data.prepare import READING
from seqtok.words import _COMMANDS, command_of, in_words_of
from tests.seqtok.commands.test_commands import seqtok


@pytest.mark.parametrize(
    ("command", "message", "said"),
    [
        ("data prepare", "use `overwrite`", "use --overwrite"),
        ("data prepare", "`resume=auto` continues", "--resume auto continues"),
        ("data prepare", "no field 'x' (`fields.image`)", "no field 'x' (--image-field)"),
        ("data prepare", "set `zero_stage`", "set `zero_stage`"),
        ("tokenizer train", "set `precision` to fp16", "set train.precision to fp16"),
        ("tokenizer train", "`allow_remote=true`", "--allow-remote"),
        ("train", "`allow_remote=true`", "data.stream.allow_remote=true"),
        ("train", "raise `num_workers`", "raise data.loader.num_workers"),
        ("train", "`text.vocab_size` is not set", "model.text.vocab_size is not set"),
        ("train", "`seed` of several parts", "`seed` of several parts"),
        ("train", "`prepare()` leaves them out", "`seqtok data prepare DATA OUT` leaves them out"),
        ("train", "`ray start --head` and `pip install wandb`", "`ray start --head` and `pip install wandb`"),
    ],
)
def test_names_are_said_as_the_command_takes_them(command: str, message: str, said: str):
    assert in_words_of(command_of(app, command.split()), message, ["demo-tokenizer"]) == said


def test_a_name_is_that_of_the_configs_own_kind():
    command, message = command_of(app, ["train"]), "`text.vocab_size` is not set"
    assert in_words_of(command, message, ["train", "demo-coevolution", "--dry-run"]) == (
        "model.tokenizer.text.vocab_size is not set"
    )
    assert in_words_of(command, message, ["train", "demo-tokenizer"]) == "model.text.vocab_size is not set"
    assert in_words_of(command, message, ["train", "nothing", "out=there"]) == message, "of several kinds"


def test_every_command_and_option_that_is_said_exists():
    for words in _COMMANDS.values():
        assert command_of(app, words.split()[1:]).name == words.split()[2]
    options = {param.name for param in command_of(app, ["data", "prepare"]).params}
    assert set(READING.names.values()) <= options


def test_a_command_speaks_of_its_own_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    status, _, err = seqtok(capsys, "data", "scenes", tmp_path / "out", "--train", 2)
    assert status != 0
    assert "use --overwrite" in err
    assert "`" not in err


def test_a_log_is_said_in_words_of_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What a training logs, where nobody has set a handler."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "argv", ["seqtok", "tokenizer", "train", "demo-tokenizer"])
    cli.speak()
    logging.getLogger("seqtok_core").warning("run: %d steps; `resume=never` begins it anew, `keep` keeps", 2)
    assert capsys.readouterr().err == "run: 2 steps; --resume never begins it anew, train.keep keeps\n"
