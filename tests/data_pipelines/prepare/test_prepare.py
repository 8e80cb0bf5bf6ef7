"""Shards: what was written is what is read, by us and by webdataset; killed and continued, the same bytes."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

from data_pipelines import scenes
from data_pipelines.pictures.decode import decode_pixels
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.files import commit_shard, is_committed
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.output import output_folder
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.drawn import ScenesSource
from data_pipelines.sources.file_sources import folder_source
from data_pipelines.sources.records import Fields
from data_pipelines.sources.tar_source import tar_sources
from seqtok_core.foundation import faults
from seqtok_core.foundation.compat import import_webdataset
from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError, StorageError
from seqtok_core.foundation.files import folder_lock
from tests.data_pipelines.toy import (
    content,
    file_bytes,
    foreign_members,
    jsonl_folder,
    picture,
    scenes_folder,
    write_tar,
)


def write_in_a_child(folder, fault: str = "") -> int:
    """Two splits of 3 + 2 shards, written by a forked process that may be killed. Returns its exit status."""
    child = os.fork()
    if child == 0:
        os.environ["SEQTOK_FAULTS"] = fault
        faults._visits.clear()
        sources = {"train": ScenesSource("train", 20, 8), "val": ScenesSource("val", 10, 8)}
        prepare(sources, folder, PrepareConfig(name="s", size=8, samples_per_shard=7))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_drawn_scenes_come_back_exactly(tmp_path):
    manifest = scenes_folder(tmp_path / "d", train=20, size=16)
    assert manifest.splits["train"].samples == 20
    assert [shard.samples for shard in manifest.splits["train"].shards] == [8, 8, 4]
    shards = open_shards(tmp_path / "d", "train")
    for index in range(20):
        scene = scenes.make_scene(0, index, "train")
        assert np.array_equal(decode_pixels(shards.read_image(index)), scenes.render(scene, 16))
        record = shards.record(index)
        assert record.captions == scene.captions
        assert record.labels == scene.labels
    assert manifest.classes["count"] == ("one", "two", "three")
    assert manifest.levels == 4
    assert manifest.level_labels == scenes.LEVEL_LABELS


def test_webdataset_reads_our_shards(tmp_path):
    scenes_folder(tmp_path / "d", train=20)
    webdataset = import_webdataset()
    urls = sorted(str(p) for p in (tmp_path / "d").glob("*-train-*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 20
    for index, sample in enumerate(samples):
        scene = scenes.make_scene(0, index, "train")
        record = json.loads(sample["json"])
        assert sample["txt"].decode() == record["captions"][-1] == scene.captions[-1]
        assert record.keys() == {"captions", "labels", "source", "sha256", "width", "height"}
        assert np.array_equal(decode_pixels(sample["png"]), scenes.render(scene, 16))


def test_equal_sources_give_equal_bytes_for_any_number_of_processes(tmp_path):
    sources = {"train": ScenesSource("train", 20, 8)}
    for name, processes in (("one", 1), ("two", 2)):
        prepare(
            sources,
            tmp_path / name,
            PrepareConfig(name="s", size=8, samples_per_shard=7, processes=processes),
        )
    assert content(tmp_path / "one") == content(tmp_path / "two")


POINTS = ["shards.before_tar:2", "shards.before_rename:3", "shards.before_index:2", "shards.after_index:1"]
POINTS += ["prepare.before_manifest:1", "prepare.after_manifest:1"]


def test_killed_anywhere_the_same_command_ends_with_the_same_bytes(tmp_path):
    assert write_in_a_child(tmp_path / "whole") == 0
    whole = content(tmp_path / "whole")
    for number, point in enumerate(POINTS):
        folder = tmp_path / str(number)
        assert write_in_a_child(folder, f"{point}=kill") == -signal.SIGKILL, point
        assert write_in_a_child(folder) == 0
        assert content(folder) == whole, point


def test_half_a_file_of_a_lost_worker_goes_when_the_others_are_done(tmp_path):
    """A node that dies takes its worker with it; what that one was writing is done again by another."""
    half, mine = (tmp_path / "d" / name for name in (".s-train-000002.tar.hrn38pcn.tmp", ".mine.tmp"))
    with output_folder(tmp_path / "d", {"plan": 1}):
        for path in (half, mine):
            path.write_bytes(b"half")
    assert not half.exists()
    assert mine.exists()


def test_committed_shards_are_kept_and_damaged_ones_built_again(tmp_path):
    folder = tmp_path / "d"
    scenes_folder(folder, train=20)
    whole = content(folder)
    kept, damaged = folder / "scenes-train-000000.tar", folder / "scenes-train-000001.tar"
    before = kept.stat().st_ino
    data = bytearray(damaged.read_bytes())
    data[700] ^= 1
    damaged.write_bytes(bytes(data))
    (folder / ".scenes-train-000002.tar.x.tmp").write_bytes(b"half")
    (folder / "dataset.json").unlink()
    scenes_folder(folder, train=20)
    assert content(folder) == whole
    assert kept.stat().st_ino == before


def test_a_shard_counts_as_done_for_its_own_task_only(tmp_path):
    done = commit_shard(tmp_path, "a-train-000000.tar", [("k", {"txt": b"x"})], task="mine", facts={})
    assert is_committed(tmp_path, done.file, "mine")
    assert not is_committed(tmp_path, done.file, "another")
    for key in ("../k", "a.b", "", "k" * 129):
        with pytest.raises(DataError, match="unsafe key"):
            commit_shard(tmp_path, "b-train-000000.tar", [(key, {"txt": b"x"})], task="mine", facts={})
    with pytest.raises(DataError, match="twice"):
        commit_shard(tmp_path, "b-train-000000.tar", [("k", {"txt": b"x"})] * 2, task="mine", facts={})
    assert not list(tmp_path.glob("b-*"))


def test_pictures_are_resized_and_words_become_classes(tmp_path):
    source = folder_source(jsonl_folder(tmp_path / "f"), Fields(labels=("group", "number")))
    manifest = prepare({"train": source}, tmp_path / "d", PrepareConfig(size=9))
    shards = open_shards(tmp_path / "d", "train")
    assert {decode_pixels(shards.read_image(i)).shape for i in range(12)} == {(9, 9, 3)}
    assert manifest.classes == {"group": ("a", "b")}
    assert manifest.labels == ("group", "number")
    assert [shards.record(i).labels for i in (0, 5)] == [{"group": 0, "number": 0}, {"group": 1, "number": 5}]
    assert manifest.levels == 4


def test_a_fitting_picture_keeps_its_bytes(tmp_path):
    members = foreign_members(0, 5, size=16)
    write_tar(tmp_path / "t/train-0.tar", members)
    prepare(dict(tar_sources(tmp_path / "t", Fields())), tmp_path / "d", PrepareConfig(size=16))
    shards = open_shards(tmp_path / "d", "train")
    assert [shards.read_image(i) for i in range(5)] == [d for n, d in members if n.endswith("jpg")]


def spoiled(folder):
    """Twelve good samples and six that each have another fault."""
    jsonl_folder(folder)
    (folder / "images/cut.png").write_bytes(file_bytes(picture(0, (64, 64)))[:300])
    (folder / "images/html.png").write_bytes(b"<html></html>")
    (folder / "images/empty.png").write_bytes(b"")
    names = ["images/cut.png", "images/html.png", "images/empty.png", "images/absent.png"]
    lines = [{"file_name": name, "captions": ["x"]} for name in names]
    lines += [
        {"file_name": "images/p 1.png", "captions": ["x"]},
        {"file_name": "images/p 2.jpg", "captions": [" "]},
    ]
    (folder / "images/p 2.jpg").write_bytes(b"")
    with open(folder / "captions.jsonl", "a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


def test_bad_samples_are_left_out_named_and_counted(tmp_path):
    source = folder_source(spoiled(tmp_path / "f"), Fields())
    manifest = prepare({"train": source}, tmp_path / "d", PrepareConfig(size=8, max_bad_share=0.5, samples_per_shard=5))
    info = manifest.splits["train"]
    assert info.samples == 12
    assert info.dropped == {
        "damaged image": 1,
        "not an image": 1,
        "empty file": 1,
        "file cannot be read": 1,
        "duplicate name": 2,
    }
    assert "images/cut.png" in [item.source for item in info.dropped_samples]
    assert read_manifest(tmp_path / "d") == manifest


def test_too_many_bad_samples_are_one_error_that_names_them(tmp_path):
    source = folder_source(spoiled(tmp_path / "f"), Fields())
    with pytest.raises(DataError, match=r"6 of 18 .*damaged image: 1.*first: images/cut.png.*max_bad_share"):
        prepare({"train": source}, tmp_path / "d", PrepareConfig(size=8, max_bad_share=0.3))
    assert not (tmp_path / "d/dataset.json").exists()


def test_a_wrong_captions_field_is_an_error_not_an_empty_text(tmp_path):
    with pytest.raises(ConfigError, match=r"no field 'caption' \(`fields.captions`\); did you mean captions"):
        folder_source(jsonl_folder(tmp_path / "f"), Fields(captions="caption"))
    source = folder_source(tmp_path / "f", Fields(captions=""))
    with pytest.raises(DataError, match="no caption: 12"):
        prepare({"train": source}, tmp_path / "d", PrepareConfig(size=8))
    kept = prepare({"train": source}, tmp_path / "e", PrepareConfig(size=8, no_caption="keep"))
    assert kept.splits["train"].samples == 12


def test_a_used_folder_is_refused_unless_overwritten(tmp_path):
    folder = tmp_path / "d"
    scenes_folder(folder, train=20)
    before = content(folder)
    with pytest.raises(DataError, match="another source or other settings"):
        scenes_folder(folder, train=21)
    with pytest.raises(DataError, match="already begun"):
        prepare(
            {"train": ScenesSource("train", 20, 16), "test": ScenesSource("test", 20, 16)},
            folder,
            PrepareConfig(name="scenes", size=16, samples_per_shard=8),
            resume="never",
        )
    assert content(folder) == before
    sources = {"train": ScenesSource("train", 9, 8)}
    prepare(sources, folder, PrepareConfig(name="scenes", size=8), overwrite=True)
    assert len(list(folder.glob("*.tar"))) == 1


def test_foreign_files_are_never_deleted(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    sources, config = {"train": ScenesSource("train", 3, 8)}, PrepareConfig(size=8)
    with pytest.raises(DataError, match=r"not empty \(notes\.txt\)"):
        prepare(sources, tmp_path, config)
    write_tar(tmp_path / "theirs.tar", foreign_members(0, 1))
    with pytest.raises(DataError, match=r"theirs\.tar"):
        prepare(sources, tmp_path, config, overwrite=True)
    (tmp_path / "theirs.tar").unlink()
    prepare(sources, tmp_path, config, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_two_writers_of_one_folder(tmp_path):
    with folder_lock(tmp_path / "d"), pytest.raises(SeqtokError, match="in use by"):
        scenes_folder(tmp_path / "d")


def test_a_full_disk_is_a_storage_error_and_nothing_is_lost(tmp_path, monkeypatch):
    folder = tmp_path / "d"
    monkeypatch.setenv("SEQTOK_FAULTS", "shards.before_rename:2=enospc")
    faults._visits.clear()
    with pytest.raises(StorageError, match="disk is full"):
        scenes_folder(folder, train=20)
    monkeypatch.delenv("SEQTOK_FAULTS")
    assert not list(folder.glob(".*.tmp"))
    scenes_folder(folder, train=20)
    scenes_folder(tmp_path / "e", train=20)
    assert content(folder) == content(tmp_path / "e")
