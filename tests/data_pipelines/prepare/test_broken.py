"""Broken inputs through the real preparation: nothing crashes, nothing is lost, no path leaves its folder."""

from __future__ import annotations

import json
import os
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.looking.verify import verify_folder
from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.file_sources import folder_source
from data_pipelines.sources.records import Fields
from data_pipelines.sources.tar_source import tar_sources
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.prepare.broken_inputs import WRITTEN, Expected, broken_folder, broken_shards, broken_tar
from tests.data_pipelines.prepare.broken_pictures import BOMB, broken_pictures

CONFIG = PrepareConfig(size=16, form="png", samples_per_shard=25, max_bad_share=1, max_bad_run=0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[Path, list[Expected], Manifest]:
    place = tmp_path_factory.mktemp("broken")
    expected = broken_folder(place / "in", place / "outside")
    before = sorted(os.listdir(place / "in"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "outside")  # a relative path that is followed by mistake ends here
        manifest = prepare({"train": folder_source(place / "in", Fields())}, place / "out", CONFIG)
    assert sorted(os.listdir(place / "in")) == before
    return place, expected, manifest


def test_every_broken_input_meets_its_stated_rule(prepared):
    place, expected, _ = prepared
    assert len(expected) >= 40
    found = accounts(place / "out")
    missing = []
    for number, case in enumerate(expected, start=1):
        mine = [(source, case.outcome) for source in (case.name, f"captions.jsonl line {number}")]
        entry = next((entry for entry in mine if entry in found), None)
        if entry is None:
            missing.append((case.name[:40], case.outcome, [what for source, what in found if source == case.name]))
        else:
            found.remove(entry)
    assert (missing, found) == ([], [])


def test_nothing_is_lost_and_every_change_is_counted(prepared):
    place, expected, manifest = prepared
    info = manifest.splits["train"]
    assert info.samples == sum(case.outcome == WRITTEN for case in expected)
    assert dict(info.dropped) == Counter(case.outcome for case in expected if case.outcome != WRITTEN)
    assert info.samples + sum(info.dropped.values()) == len(expected)
    wanted = Counter(case.note for case in expected if case.note)
    wanted["empty captions left out"] += 1  # one sample has two of them
    assert dict(info.notes) == wanted
    assert verify_folder(place / "out").problems == []


def test_colours_are_as_stated(prepared):
    place, expected, _ = prepared
    shards = open_shards(place / "out", "train")
    written = [case for case in expected if case.outcome == WRITTEN]
    for index, case in enumerate(written):
        pixels = decode_pixels(shards.read_image(index))
        assert pixels.shape == (16, 16, 3)
        if case.picture and case.picture.colour:
            mean = pixels.reshape(-1, 3).mean(0)
            assert np.abs(mean - case.picture.colour).max() <= 3, (case.picture.name, mean)
        if case.captions is not None:
            assert list(shards.record(index).captions) == case.captions


def test_no_path_leaves_its_folder_and_nothing_is_run(prepared):
    place, _, _ = prepared
    assert sorted(path.name for path in place.iterdir()) == ["in", "out", "outside"]
    assert os.listdir(place / "outside") == ["secret.png"]
    named = {path.name.split(".")[0].rpartition("-")[0] for path in (place / "out").glob("data-*")}
    assert named == {"data-train"}
    assert all(path.is_file() and not path.is_symlink() for path in (place / "out").iterdir())


def test_bombs_are_refused_before_their_pixels_are_allocated(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB
    bombs = [case for case in broken_pictures(tmp_path / "marker") if case.outcome == BOMB]
    assert len(bombs) == 4
    for case in bombs:
        for size in (None, 16):
            with pytest.raises(DecodeError, match=BOMB):
                decode_pixels(case.data, size)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_odd_members_of_a_whole_tar(tmp_path):
    expected = broken_tar(tmp_path / "in/train-0.tar", tmp_path / "marker")
    source = tar_sources(tmp_path / "in", Fields())["train"]
    manifest = prepare({"train": source}, tmp_path / "out", CONFIG)
    assert {source.rpartition(":")[2]: what for source, what in accounts(tmp_path / "out")} == expected
    info = manifest.splits["train"]
    assert info.samples + sum(info.dropped.values()) == len(expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"], "no pickle ran, no path was followed"
    assert verify_folder(tmp_path / "out").problems == []


def test_odd_members_are_named_by_loader_and_verify(tmp_path):
    expected = broken_tar(tmp_path / "in/train-0.tar", tmp_path / "marker")
    shards = open_shards(tmp_path / "in", "train", max_bad_share=1.0)
    dropped = {bad.source.rpartition(":")[2]: bad.reason for bad in shards.dropped}
    read_later = {"no record", "cut"}  # a missing caption and damaged pixels show when a sample is read
    assert dropped == {key: what for key, what in expected.items() if what != WRITTEN and key not in read_later}
    verdict = "\n".join(verify_folder(tmp_path / "in").problems)
    assert all(key in verdict for key in (*dropped, "cut"))
    assert not (tmp_path / "marker").exists()


def test_damaged_tars_are_errors_or_skipped_and_named(tmp_path):
    messages = broken_shards(tmp_path / "in")
    for file, message in messages.items():
        with pytest.raises(DataError, match="train-") as caught:
            tar_sources(tmp_path / "in" / file, Fields())
        assert message in str(caught.value), file
    source = tar_sources(tmp_path / "in", Fields(), on_bad_shard="skip")["train"]
    assert len(source) == 4
    assert len(source.skipped) == len(messages)
    assert all(any(file in text for text in source.skipped) for file in messages)
    problems = "\n".join(verify_folder(tmp_path / "in").problems)
    assert all(file in problems for file in messages)


def test_names_that_come_twice_over_shards_and_splits(tmp_path):
    broken_shards(tmp_path / "in")
    good = (tmp_path / "in/train-good.tar").read_bytes()
    for name in ("train-0.tar", "train-1.tar", "val-0.tar"):
        path = tmp_path / "two" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(good)
    manifest = prepare({**tar_sources(tmp_path / "two", Fields())}, tmp_path / "out", CONFIG)
    assert manifest.splits["train"].samples == manifest.splits["val"].samples == 4
    assert manifest.splits["train"].dropped == {"duplicate name": 4}
    keys = [
        key for path in (tmp_path / "out").glob("*.index.json") for key, _ in json.loads(path.read_text())["samples"]
    ]
    assert len(keys) == len(set(keys)) == 8


def accounts(out: Path) -> list[tuple[str, str]]:
    """(source, "written" or the reason) of every record, from the shards and their indexes."""
    found = []
    shards = open_shards(out, "train")
    for index in range(len(shards)):
        found.append((json.loads(shards.read(index, ("json",)))["source"], WRITTEN))
    for path in out.glob("*.index.json"):
        found += [(bad["source"], bad["reason"]) for bad in json.loads(path.read_text())["facts"]["dropped"]]
    return found
