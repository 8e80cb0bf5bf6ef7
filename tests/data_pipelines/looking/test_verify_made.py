"""What earlier versions lost in silence is found: in the folders that they made, and in foreign tars."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.looking.verify import verify_folder
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.manifest import read_manifest, write_manifest
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.sources.records import Fields
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import sha256_file
from tests.data_pipelines.toy import foreign_members, write_tar


@pytest.fixture
def made(tmp_path: Path) -> Path:
    write_tar(tmp_path / "in/train-0.tar", foreign_members(0, 6))
    sources = open_source(tmp_path / "in", SourceConfig(fields=Fields(labels=("group",))))
    prepare(sources, tmp_path / "d", PrepareConfig(size=16))
    assert verify_folder(tmp_path / "d").problems == []
    return tmp_path / "d"


def changed(folder: Path, **changes: Any) -> list[str]:
    """Problems after dataset.json says what an earlier version wrote."""
    write_manifest(folder, read_manifest(folder).model_copy(update=changes))
    return verify_folder(folder).problems


def source_with(folder: Path, **facts: Any) -> dict[str, Any]:
    source = json.loads(json.dumps(dict(read_manifest(folder).source)))
    source["splits"]["train"].update(facts)
    return {"source": source}


def test_shards_that_nobody_named(made: Path):
    (problem,) = changed(made, **source_with(made, skipped_shards=2))
    assert "dataset.json: train: 2 damaged shards of the source were left out" in problem
    assert changed(made, **source_with(made, skipped_shards=2, skipped=["a.tar", "b.tar"])) == []
    notes = verify_folder(made).notes
    assert "train: shard b.tar of the source was damaged and left out" in notes


def test_class_numbers_that_were_put_in_order_as_words(made: Path):
    words = tuple(sorted(str(n) for n in range(12)))
    (problem,) = changed(made, classes={"cls": words, "group": ("g0", "g1", "g2", "g3")})
    assert "label 'cls': " in problem
    assert "10 became 2" in problem
    group = {"group": ("g0", "g1", "g2", "g3")}
    assert changed(made, classes={"cls": tuple("0123"), **group}) == []
    assert changed(made, classes={"cls": ("1", "dog"), **group}) == []
    assert changed(made, classes={"year": ("10", "9"), **group}) == [], "words of a table that look like numbers"
    assert any("label 'year'" in note for note in verify_folder(made).notes)


def test_many_dropped_samples_are_noted(made: Path):
    info = read_manifest(made).splits["train"]
    splits = {"train": info.model_copy(update={"dropped": {"no picture": 3, "filtered size": 9}})}
    assert changed(made, splits=splits) == []
    assert "train: 3 of 9 samples were dropped as bad (no picture: 3)" in verify_folder(made).notes


@pytest.mark.parametrize(
    ("members", "lost"),
    [(["0.jpg", "0.txt", "1.jpg", "1.txt"], 2), (["7.jpg", "7.txt"], 1), (["txt"], 0), (["in.jpg"], 0)],
)
def test_samples_that_fell_on_one_key(tmp_path: Path, members: list[str], lost: int):
    """An earlier version dropped the key; its index says which members it held."""
    write_tar(tmp_path / "in/train-0.tar", [*foreign_members(0, 6), ("v1.npy", b"x")])
    prepare(open_source(tmp_path / "in", SourceConfig()), tmp_path / "d", PrepareConfig(size=16, max_bad_share=1))
    index = next((tmp_path / "d").glob("*.index.json"))
    content = json.loads(index.read_text())
    content["facts"]["dropped"][0]["detail"] = f"members {members}"
    index.write_text(json.dumps(content))
    info = read_manifest(tmp_path / "d").splits["train"]
    shards = (info.shards[0].model_copy(update={"index_sha256": sha256_file(index)}),)
    problems = changed(tmp_path / "d", splits={"train": info.model_copy(update={"shards": shards})})
    assert len(problems) == bool(lost)
    for problem in problems:
        assert f"train-0.tar:v1 was dropped as one sample without a picture and held {lost}, " in problem


def test_foreign_tars_are_told_what_their_readers_lose(tmp_path: Path):
    picture = foreign_members(0, 1)[0][1]
    dots = [(f"v1.{n}.{kind}", data) for n in range(3) for kind, data in (("jpg", picture), ("txt", b"x"))]
    path = write_tar(tmp_path / "train-0.tar", [*foreign_members(0, 4), *dots])
    write_tar(tmp_path / "x/a.tar", foreign_members(4, 3))
    write_tar(tmp_path / "x/b.tar", foreign_members(7, 2))
    parts = [(tmp_path / "x" / name).read_bytes() for name in ("a.tar", "b.tar")]
    (tmp_path / "train-1.tar").write_bytes(b"".join(parts))
    (tmp_path / "train-2.tar.gz").write_bytes(gzip.compress(parts[0]))
    verdict = verify_folder(tmp_path)
    assert verdict.samples == 4 + 1 + 5
    assert [problem.split(": ")[:2] for problem in verdict.problems] == [
        *([f"{path}:v1.{n}", "dots in the name"] for n in range(3)),
        [str(tmp_path), "train-2.tar.gz"],
    ]
    (joined,) = [note for note in verdict.notes if "joined" in note]
    assert joined.startswith(f"{tmp_path / 'train-1.tar'}: 2 tars joined to one;")
    assert joined.endswith("reads 3 of 5 samples")


def test_sparse_members_are_no_damage(tmp_path: Path):
    """GNU tar stores them with their holes left out, so they end before their size says."""
    with open(tmp_path / "k9.jpg", "wb") as stream:
        stream.write(foreign_members(0, 1)[0][1])
        stream.truncate(4 << 20)
    subprocess.run(["tar", "--sparse", "-cf", str(tmp_path / "train-0.tar"), "-C", str(tmp_path), "k9.jpg"], check=True)
    (problem,) = verify_folder(tmp_path).problems
    assert problem.endswith("train-0.tar:k9: has no picture")


def test_joined_and_gzipped_tars_are_told_alone_and_in_folders(tmp_path: Path):
    parts = [write_tar(tmp_path / name, foreign_members(3 * n, 3)).read_bytes() for n, name in enumerate("ab")]
    joined, packed, named = tmp_path / "j/x.tar", tmp_path / "p/x.tar.gz", tmp_path / "n/x.tar"
    contents = {joined: b"".join(parts), packed: gzip.compress(parts[0]), named: gzip.compress(parts[0])}
    for path, content in contents.items():
        path.parent.mkdir()
        path.write_bytes(content)
    for where in (joined, joined.parent):
        verdict = verify_folder(where)
        assert (verdict.samples, verdict.problems) == (6, [])
        assert [note.partition(";")[0] for note in verdict.notes if "joined" in note] == [
            f"{joined}: 2 tars joined to one"
        ]
    for where in (packed, named, named.parent):
        (problem,) = verify_folder(where).problems
        assert "compressed with gzip" in problem
        assert "gunzip" in problem
    with pytest.raises(DataError, match=r"x\.tar\.gz: compressed with gzip.*gunzip"):
        verify_folder(packed.parent)


def test_tars_that_an_earlier_version_did_not_read_are_spoken_of(made: Path):
    assert not any("earlier version" in note for note in verify_folder(made).notes)
    source = source_with(made, shards={"x-003.tar": 1, "x-000.tar": 1, "x-001.tar": 1, "y.tar": 1})["source"]
    source["config"].pop("max_pixels")
    assert changed(made, source=source) == [], "what may be lost is no fault"
    said = "\n".join(verify_folder(made).notes)
    assert "train: made by an earlier version, which read the first alone of tars that were joined" in said
    assert "train: its source has gaps where x-002.tar would be" in said
    source["splits"]["train"]["shards"] = {f"{n}.tar": 1 for n in (256, 512, 1024)}
    changed(made, source=source)
    assert not any("gaps" in note for note in verify_folder(made).notes), "numbers that do not go on end"
    source["splits"]["train"]["kind"] = "csv"
    changed(made, source=source)
    assert not any("earlier version" in note for note in verify_folder(made).notes)
