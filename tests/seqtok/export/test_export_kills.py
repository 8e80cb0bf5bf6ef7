"""Exports are the same bytes for any number of processes and ranks, and after a kill at any point (faults 1 and 3)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from seqtok.export.config import ExportConfig
from seqtok.export.run import export_tokens
from seqtok_core.foundation.errors import DataError
from tests.seqtok.export.toy import content, run_export, saved_tokenizer, scenes
from tests.slow import rest_slow

FORMS: dict[str, tuple[str, ...]] = {
    "latents": (),
    "numpy": ("--format", "numpy"),
    "embeddings": ("--what", "embeddings", "--side", "both", "--prefix", "1", "--prefix", "4"),
    "one.parquet": ("--what", "embeddings", "--prefix", "2"),
}
SETTINGS = {
    "latents": ExportConfig(),
    "numpy": ExportConfig(format="numpy"),
    "embeddings": ExportConfig(what="embeddings", side="both", prefixes=(1, 4)),
    "one.parquet": ExportConfig(what="embeddings", prefixes=(2,)),
}
# form, point. Six shards: two of split test, four of train.
KILLS = [
    ("one.parquet", "export.before_close"),
    ("latents", "export.before_encode:4"),
    ("latents", "shards.before_rename:3"),
    ("latents", "shards.before_index:5"),
    ("latents", "latents.before_manifest"),
    ("numpy", "parts.before_rename:4"),  # the keys of the second part
    ("numpy", "parts.before_index:3"),
    ("embeddings", "parts.before_files:6"),
    ("embeddings", "parts.after_index:7"),
    ("embeddings", "parts.before_manifest"),
    ("one.parquet", "parts.before_index:6"),
    ("one.parquet", "export.after_assembly"),
]
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("kills") / "scenes")


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    return saved_tokenizer(data.parent / "tokenizer", data)


@pytest.fixture(scope="module")
def whole(model: Path, data: Path) -> dict[str, dict[str, bytes]]:
    """What each form is when nothing disturbs it, made in this process."""
    made = {}
    for form, settings in SETTINGS.items():
        out = data.parent / "whole" / form
        export_tokens(model, data, out, settings)
        made[form] = content(out)
    return made


@pytest.mark.parametrize(
    ("form", "point"), [pytest.param(*kill, marks=[] if n < 2 else SLOW) for n, kill in enumerate(KILLS)]
)
def test_a_killed_export_continues_to_the_same_bytes(model, data, whole, tmp_path, form, point):
    out = tmp_path / form
    killed = run_export(model, data, out, *FORMS[form], faults=f"{point}=kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    indexes = list((out if out.is_dir() else tmp_path / f".{form}.parts").glob("*.index.json"))
    kept = {path: path.stat().st_ino for path in indexes}
    export_tokens(model, data, out, SETTINGS[form])
    assert content(out) == whole[form]
    assert {path.name for path in tmp_path.iterdir()} == {form}, "nothing is left beside it"
    if out.is_dir():
        assert {path: path.stat().st_ino for path in kept} == kept, "committed shards are kept"


@pytest.mark.parametrize("form", [pytest.param(form, marks=[] if form == "latents" else SLOW) for form in FORMS])
def test_two_processes_write_the_bytes_of_one(model, data, whole, tmp_path, form):
    done = run_export(model, data, tmp_path / form, *FORMS[form], "--processes", 2)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / form) == whole[form]


@pytest.mark.parametrize("form", rest_slow(["latents", "embeddings"]))
def test_threads_change_no_bit(model, data, whole, tmp_path, form):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            export_tokens(model, data, tmp_path / str(threads), SETTINGS[form].model_copy(update={"batch": 3}))
            assert torch.get_num_threads() == threads
            assert content(tmp_path / str(threads)) == content(tmp_path / "1")
    finally:
        torch.set_num_threads(before)


@SLOW
@pytest.mark.parametrize("form", FORMS)
def test_two_ranks_write_the_bytes_of_one(model, data, whole, tmp_path, form):
    done = run_export(model, data, tmp_path / form, *FORMS[form], ranks=2)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / form) == whole[form]


@SLOW
def test_a_killed_rank_ends_the_others_and_the_export_continues(model, data, whole, tmp_path):
    out = tmp_path / "latents"
    assert run_export(model, data, out, faults="export.before_encode:2=kill", ranks=2).returncode != 0
    again = run_export(model, data, out, ranks=2)
    assert again.returncode == 0, again.stderr
    assert content(out) == whole["latents"]


@SLOW
@pytest.mark.parametrize(("visit", "status"), [(":3", 0), ("", 1)])
def test_a_killed_workers_shard_is_done_again_or_named(model, data, whole, tmp_path, visit, status):
    """Each worker dies at its third shard: done again by another. Each at its first: a message after three deaths."""
    out = tmp_path / "latents"
    killed = run_export(model, data, out, "--processes", 2, faults=f"export.before_encode{visit}=kill")
    assert killed.returncode == status, killed.stderr
    assert "Traceback" not in killed.stderr
    if status:
        assert "died 3 times" in killed.stderr
    again = run_export(model, data, out, "--processes", 2)
    assert again.returncode == 0, again.stderr
    assert content(out) == whole["latents"]


def test_an_error_of_a_shard_names_its_key_and_keeps_the_others(model, data, tmp_path):
    """A picture whose bytes are damaged after the data set was made."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name, blob in content(data).items():
        (folder / name).write_bytes(blob)
    tar = folder / "scenes-train-000002.tar"
    blob = bytearray(tar.read_bytes())
    start = blob.index(b"\x89PNG")
    blob[start : start + 8] = b"garbage!"
    tar.write_bytes(bytes(blob))
    with pytest.raises(DataError, match=r"scenes-train-000002\.tar:train-00000016"):
        export_tokens(model, folder, tmp_path / "out", ExportConfig())
    assert len(list((tmp_path / "out").glob("*.tar"))) == 4, "two of test, two of train"


def test_dry_run_writes_nothing_and_used_folders_are_refused(model, data, tmp_path, capsys):
    assert export_tokens(model, data, tmp_path / "out", ExportConfig(format="numpy"), dry_run=True) is None
    assert "would write latents of split train, 30 pictures in 4 shards" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine.parquet").write_text("precious")
    for out in (tmp_path, tmp_path / "mine.parquet"):
        for dry_run in (True, False):
            with pytest.raises(DataError, match=str(tmp_path)):
                export_tokens(model, data, out, ExportConfig(what="embeddings"), dry_run=dry_run)
    assert (tmp_path / "mine.parquet").read_text() == "precious"


def test_resume_never_refuses_what_was_begun_and_overwrite_starts_again(model, data, whole, tmp_path):
    for form in ("numpy", "one.parquet"):
        export_tokens(model, data, tmp_path / form, SETTINGS[form])
        with pytest.raises(DataError, match="already"):
            export_tokens(model, data, tmp_path / form, SETTINGS[form], resume="never")
        with pytest.raises(DataError, match=r"another source or other settings|exists already"):
            export_tokens(model, data, tmp_path / form, SETTINGS["embeddings"].model_copy(update={"side": "text"}))
        export_tokens(model, data, tmp_path / form, SETTINGS[form], overwrite=True)
        assert content(tmp_path / form) == whole[form]
