"""Export of foreign tars: keys become those of preparing, what is bad is counted and limited, members have names."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.open import SourceConfig, open_source
from seqtok.export.config import ExportConfig
from seqtok.export.run import export_tokens
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.toy import foreign_members, write_tar
from tests.seqtok.export.toy import content, saved_tokenizer, scenes

ODD = ("./été/图片1", "a/b", "a_b", "with space", "n" * 120 + "/" + "m" * 40, "plain")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    return saved_tokenizer(folder / "tokenizer", scenes(folder / "scenes"))


def named(names: tuple[str, ...], first: int = 0) -> list[tuple[str, bytes]]:
    """Pictures and records of the toy under other names."""
    members = foreign_members(first, len(names))
    return [
        (f"{name}.{members[3 * n + k][0].split('.')[1]}", members[3 * n + k][1])
        for n, name in enumerate(names)
        for k in range(3)
    ]


def exported_keys(folder: Path, split: str = "train") -> list[str]:
    shards = open_shards(folder, split, kind="latents")
    return [shards.key(n) for n in range(len(shards))]


def export(model: Path, data: Path, out: Path, **settings) -> Path:
    export_tokens(model, data, out, ExportConfig.parse({"on_outlier": "warn", **settings}))
    return out


def test_keys_become_what_preparing_makes_of_them(model: Path, tmp_path: Path):
    write_tar(tmp_path / "in/train-0.tar", named(ODD[:3]))
    write_tar(tmp_path / "in/train-1.tar", named(ODD[3:], first=3))
    prepare(open_source(tmp_path / "in", SourceConfig()), tmp_path / "d", PrepareConfig(size=16, samples_per_shard=3))
    wanted = open_shards(tmp_path / "d", "train")
    export(model, tmp_path / "in", tmp_path / "out")
    assert exported_keys(tmp_path / "out") == [wanted.key(n) for n in range(6)]
    assert len(set(exported_keys(tmp_path / "out"))) == 6


@pytest.mark.slow
def test_two_processes_agree_on_keys(model: Path, tmp_path: Path):
    write_tar(tmp_path / "in/train-0.tar", named(ODD[:3]))
    write_tar(tmp_path / "in/train-1.tar", named(ODD[3:], first=3))
    export(model, tmp_path / "in", tmp_path / "one")
    export(model, tmp_path / "in", tmp_path / "two", processes=2)
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_keys_that_start_again_are_told_apart_and_splits_do_not_change_them(model: Path, tmp_path: Path):
    for n, shard in enumerate(("train-0", "train-1", "val-0")):
        write_tar(tmp_path / f"in/{shard}.tar", named(("0", "1"), first=2 * n))
    export(model, tmp_path / "in", tmp_path / "all")
    assert exported_keys(tmp_path / "all") == ["train-0_0", "train-0_1", "train-1_0", "train-1_1"]
    assert exported_keys(tmp_path / "all", "val") == ["0", "1"]
    (tmp_path / "in/train-1.tar").unlink()
    export(model, tmp_path / "in", tmp_path / "two")
    export(model, tmp_path / "in", tmp_path / "val", splits=("val",))
    for out in ("two", "val"):
        assert exported_keys(tmp_path / out, "val") == ["0", "1"], "whatever else is exported"


def test_bad_samples_are_counted_and_limited(model: Path, tmp_path: Path):
    write_tar(tmp_path / "in/train-0.tar", [*foreign_members(0, 8), ("a.txt", b"x"), ("b.jpg", b"x"), ("b.json", b"{")])
    message = r"2 of 10 samples are bad .*first: train-0\.tar:a .*`max_bad_share`"
    with pytest.raises(DataError, match=message):
        export(model, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.warns(UserWarning, match=r"2 of 10 samples are bad .* left out: train-0\.tar:a .*:b") as told:
        export(model, tmp_path / "in", tmp_path / "out", max_bad_share=0.2)
    assert len(told) == 1, "once, whoever reads the shards"
    assert read_manifest(tmp_path / "out").splits["train"].samples == 8


def test_members_are_taken_by_their_names(model: Path, tmp_path: Path):
    renamed = {"jpg": "input.jpg", "txt": "outputs.txt", "json": "meta.json"}
    members = [(f"{name.split('.')[0]}.{renamed[name.split('.')[1]]}", data) for name, data in foreign_members(0, 4)]
    write_tar(tmp_path / "in/train-0.tar", members)
    with pytest.raises(DataError, match=r"`fields\.image_member` names"):
        export(model, tmp_path / "in", tmp_path / "out")
    settings = {"image_member": "input.jpg", "caption_members": ("outputs.txt",)}
    export(model, tmp_path / "in", tmp_path / "out", **settings)
    shards = open_shards(tmp_path / "out", "train", kind="latents")
    assert [shards.record(n).captions for n in range(4)] == [(f"fine {n}",) for n in range(4)]
    with pytest.raises(ConfigError, match="either in a field or in members"):
        export(model, tmp_path / "in", tmp_path / "x", captions_field=("title",), **settings)
