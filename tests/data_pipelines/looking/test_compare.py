"""A data set that holds less than its source is found by holding it against the source, whatever was lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from data_pipelines.looking.compare import compare_with_source
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.sources.records import Fields
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.toy import file_bytes, foreign_members, picture, write_tar
from tests.seqtok.commands.test_commands import seqtok

LABELS = SourceConfig(fields=Fields(labels=("group",)))


def made(source: Path, out: Path, config: SourceConfig = LABELS, **settings) -> Path:
    prepare(open_source(source, config), out, PrepareConfig(size=16, **settings))
    return out


def compare(folder: Path, source: Path, config: SourceConfig = LABELS) -> list[str]:
    return compare_with_source(folder, open_source(source, config))


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    write_tar(tmp_path / "in/train-0.tar", foreign_members(0, 6))
    write_tar(tmp_path / "in/val-0.tar", foreign_members(6, 2))
    return tmp_path / "in"


def test_what_was_made_of_all_differs_in_nothing(tars: Path, tmp_path: Path):
    folder = made(tars, tmp_path / "d")
    assert compare(folder, tars) == []
    moved = shutil.move(tars, tmp_path / "elsewhere")
    assert compare(folder, Path(moved)) == []


def test_dropped_samples_count_as_known(tmp_path: Path):
    write_tar(tmp_path / "in/train-0.tar", [*foreign_members(0, 6), ("9.jpg", b"no picture"), ("9.txt", b"a")])
    folder = made(tmp_path / "in", tmp_path / "d", max_bad_share=0.5)
    assert compare(folder, tmp_path / "in") == []


def test_samples_behind_a_first_end_mark(tars: Path, tmp_path: Path):
    """As a version left them out that read tars to their first end mark."""
    folder = made(tars, tmp_path / "d")
    write_tar(tmp_path / "more.tar", foreign_members(10, 5))
    with (tars / "train-0.tar").open("ab") as joined:
        joined.write((tmp_path / "more.tar").read_bytes())
    assert compare(folder, tars) == [
        "train: the source has 11 samples as it is read today, the data set has 6 samples; prepare the data set again"
    ]


def test_a_split_too_many_or_too_few(tars: Path, tmp_path: Path):
    folder = made(tars, tmp_path / "d")
    shutil.copy(tars / "val-0.tar", tars / "test-0.tar")
    (tars / "val-0.tar").unlink()
    first, second = compare(folder, tars)
    assert first.startswith("test: the source has 2 samples, the data set has no such split")
    assert second.startswith("val: the data set has 2 samples, the source as it is read today has no such split")


def test_the_command_says_it_and_ends_with_one(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = made(tars, tmp_path / "d")
    status, out, _ = seqtok(capsys, "data", "compare", folder, tars, "--label-field", "group")
    assert (status, "holds every sample" in out) == (0, True)
    write_tar(tars / "train-1.tar", foreign_members(10, 1))
    status, out, _ = seqtok(capsys, "data", "compare", folder, tars, "--label-field", "group")
    assert (status, "the source has 7 samples" in out) == (1, True)
    status, _, err = seqtok(capsys, "data", "compare", tars, tars)
    assert status == 1
    assert "not a finished data set" in err


def test_a_source_that_is_refused_today_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two files of one COCO id: an earlier version gave each the other's captions."""
    root, ids = tmp_path / "coco", [1, 2]
    root.mkdir()
    for number in ids:
        (root / f"{number}.png").write_bytes(file_bytes(picture(number)))
    for name, images in (("good", ids), ("bad", [1, 1])):
        content = {
            "images": [{"id": i, "file_name": f"{n}.png"} for i, n in zip(images, ids, strict=True)],
            "annotations": [{"image_id": i, "caption": f"caption {n}"} for n, i in enumerate(images)],
        }
        (root / f"{name}.json").write_text(json.dumps(content))
    folder = made(root / "good.json", tmp_path / "d", SourceConfig())
    status, _, err = seqtok(capsys, "data", "compare", folder, root / "bad.json")
    assert status == 1
    assert "its source is not read any more as it is" in err


def test_latents_are_compared_by_their_pictures(tmp_path: Path):
    (tmp_path / "dataset.json").write_text(
        json.dumps({"schema_version": 1, "kind": "latents", "name": "x", "splits": {}})
    )
    with pytest.raises(DataError, match="holds latents"):
        compare_with_source(tmp_path, {})


def test_verify_looks_at_the_source_as_well(tars: Path, tmp_path: Path, capsys):
    folder = made(tars, tmp_path / "d", SourceConfig())
    assert seqtok(capsys, "data", "verify", folder, "--source", tars)[0] == 0
    write_tar(tars / "train-1.tar", foreign_members(20, 3))
    status, out, _ = seqtok(capsys, "data", "verify", folder, "--source", tars)
    assert (status, "the source has 9 samples as it is read today, the data set has 6 samples" in out) == (1, True)
    (tars / "train-1.tar.gz").write_bytes(b"\x1f\x8b")
    status, out, _ = seqtok(capsys, "data", "verify", folder, "--source", tars)
    assert (status, "its source is not read any more as it is" in out) == (1, True)
    assert seqtok(capsys, "data", "verify", folder)[0] == 0
