"""Limits of the system are one message with the way out: open files, size of a file."""

from __future__ import annotations

import errno
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from seqtok import cli
from seqtok_core.foundation import machine
from seqtok_core.foundation.errors import SeqtokError
from tests.data_pipelines.reading.test_loader import folder, loader  # noqa: F401


def test_a_file_beyond_the_limit_is_not_a_full_disk(tmp_path: Path):
    """In a process of its own: the limit would hold for whatever else this one writes."""
    code = f"""
import resource
from pathlib import Path
from seqtok_core.foundation import files
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
with files.atomic_write(Path({str(tmp_path / "x.bin")!r})) as stream:
    stream.write(b"x" * 8193)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(r"StorageError: .*x\.bin: .*8 KiB, RLIMIT_FSIZE.*ulimit -f unlimited", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


def limited(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    """The limits that were asked for."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
    monkeypatch.setattr(machine, "_open_files", lambda: 20)
    return asked


def test_open_files_are_asked_for_up_to_what_the_system_allows(monkeypatch: pytest.MonkeyPatch):
    asked = limited(monkeypatch, 64, 4096)
    machine.require_open_files(44, "this")
    assert asked == []
    machine.require_open_files(45, "this")
    assert asked == [(65, 4096)]


def test_more_open_files_than_allowed_name_the_number(monkeypatch: pytest.MonkeyPatch):
    limited(monkeypatch, 64, 64)
    with pytest.raises(
        SeqtokError, match=r"2 things: about 120 open files are needed, .* may have 64; .*ulimit -n 1024"
    ):
        machine.require_open_files(100, "2 things")


def test_a_loader_asks_before_its_workers_start(folder, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    source = loader(folder, num_workers=2)
    limited(monkeypatch, 64, 64)
    with pytest.raises(SeqtokError, match="2 loader workers: about"):
        next(source.iterate(0))


def test_the_command_line_says_it_where_nobody_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(cli, "app", full)
    monkeypatch.setattr(cli, "command_of", lambda app, words: None)
    monkeypatch.setattr(cli, "in_words_of", lambda command, message, words: message)
    assert cli._run() == 1
    assert "too many open files: this process may have" in capsys.readouterr().err
