"""Every kind of damage is found, with its place: the table of docs/inspect.md, on our shards and foreign tars."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_pipelines.executors.progress import Progress
from data_pipelines.looking.verify import verify_folder
from data_pipelines.shards.files import commit_shard
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.tars.digests import Digests, digests_of
from data_pipelines.tars.index import scan_tar
from data_pipelines.tars.walk import walk_tar
from seqtok.commands.data.app import app
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.toy import file_bytes, foreign_members, picture, scenes_folder, vocabulary, write_tar

BLOCK = 512


def header_of(data: bytes, member: str) -> int:
    """Offset of a member's header."""
    return data.index(member.encode() + b"\0")


def cut_inside_a_member(data: bytearray) -> bytes:
    return bytes(data[: header_of(data, "k2.jpg") + BLOCK + 20])


def cut_between_samples(data: bytearray) -> bytes:
    return bytes(data[: header_of(data, "k2.jpg")])


def cut_inside_a_sample(data: bytearray) -> bytes:
    return bytes(data[: header_of(data, "k2.txt")])


def overwritten_header(data: bytearray) -> bytes:
    start = header_of(data, "k2.jpg")
    data[start : start + BLOCK] = b"\xa5" * BLOCK
    return bytes(data)


def empty_file(data: bytearray) -> bytes:
    return b""


def garbage(data: bytearray) -> bytes:
    return np.random.default_rng(0).bytes(4000)


# damage -> (samples that can still be read of the five, what is said of it)
DAMAGE: dict[Callable[[bytearray], bytes], tuple[int, str]] = {
    cut_inside_a_member: (2, r"cut inside k2\.jpg, which ends at byte \d+, at byte \d+"),
    cut_between_samples: (2, r"ends at byte \d+ after k1\.txt without the blocks that close a tar"),
    cut_inside_a_sample: (3, r"ends at byte \d+ after k2\.json without the blocks that close a tar"),
    overwritten_header: (2, r"damaged header at byte \d+ of \d+, after k1\.txt: what follows cannot be read"),
    empty_file: (0, "empty file"),
    garbage: (0, "not a tar"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_of_foreign_tars_is_named_with_its_place(tmp_path: Path, damage):
    """A good shard stands beside it, and what lies before the damage is checked as well."""
    bad = write_tar(tmp_path / "train-0.tar", foreign_members(0, 5))
    write_tar(tmp_path / "train-1.tar", foreign_members(5, 5))
    bad.write_bytes(damage(bytearray(bad.read_bytes())))
    kept, message = DAMAGE[damage]
    verdict = verify_folder(tmp_path)
    assert verdict.samples == kept + 5
    text = "\n".join(verdict.problems)
    assert "train-1.tar" not in text
    with pytest.raises(DataError):  # what verification finds, the loader refuses
        scan_tar(bad)
    assert [p for p in verdict.problems if p.startswith(f"{bad}: ")], text
    assert re.search(message, text), text


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_of_our_shards_is_named_too(tmp_path: Path, damage):
    """Ours say more: which shard has how many bytes instead of which."""
    manifest = ours(tmp_path / "d")
    path = tmp_path / "d" / manifest.splits["train"].shards[0].file
    path.write_bytes(damage(bytearray(path.read_bytes())))
    text = "\n".join(verify_folder(tmp_path / "d").problems)
    size = path.stat().st_size
    expected = manifest.splits["train"].shards[0].bytes
    if size != expected:
        assert f"{path}: has {size} bytes instead of {expected}" in text
    else:
        assert f"{path}: content differs from its hash" in text
    assert re.search(DAMAGE[damage][1], text), text


def ours(folder: Path):
    """Two shards of five samples whose members are called k0.jpg ... as in the foreign tars."""
    scenes_folder(folder, train=10, test=5, size=16, per_shard=5)
    manifest = read_manifest(folder)
    infos = []
    for number, info in enumerate(manifest.splits["train"].shards):
        samples = []
        for n in range(5 * number, 5 * number + 5):
            record = {"captions": [f"coarse {n}", f"fine {n}"], "labels": {}}
            picture_file = file_bytes(picture(n, (16, 16)), "JPEG")
            members = {"jpg": picture_file, "json": json.dumps(record).encode(), "txt": f"fine {n}".encode()}
            samples.append((f"k{n}", members))
        infos.append(commit_shard(folder, info.file, samples, task="t", facts={}))
    split = manifest.splits["train"].model_copy(update={"shards": tuple(infos)})
    manifest = manifest.model_copy(update={"splits": {**manifest.splits, "train": split}})
    (folder / "dataset.json").write_text(json.dumps(manifest.model_dump(mode="json")))
    assert verify_folder(folder).problems == []
    return manifest


def test_every_flipped_bit_of_a_shard_of_ours_is_found(tmp_path: Path):
    manifest = ours(tmp_path / "d")
    path = tmp_path / "d" / manifest.splits["train"].shards[1].file
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 25).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        problems = verify_folder(tmp_path / "d", decode=False).problems
        assert any("content differs from its hash" in problem for problem in problems), place


def test_flipped_bits_of_foreign_pictures(tmp_path: Path):
    """PNG: every chunk has a checksum, so each flip in a picture is found. JPEG has none: docs/inspect.md."""
    members = [("a.png", file_bytes(picture(0, (40, 40)))), ("a.json", b'{"captions": ["x"]}')]
    path = write_tar(tmp_path / "train-0.tar", members)
    whole = path.read_bytes()
    start, size = scan_tar(path)[0].members["png"]
    rng = np.random.default_rng(0)
    for place in [*range(start, start + 60), *rng.integers(start, start + size, 100).tolist()]:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        assert any("train-0.tar:a: " in problem for problem in verify_folder(tmp_path).problems), place - start


def test_keys_that_come_again_are_named(tmp_path: Path):
    members = foreign_members(0, 3)
    adjacent = write_tar(tmp_path / "a/train-0.tar", [members[0], *members])
    assert (
        verify_folder(tmp_path / "a").problems[0].startswith(f"{adjacent}: k0.jpg comes again at byte {3 * BLOCK}"[:40])
    )
    torn = write_tar(tmp_path / "b/train-0.tar", [*members, ("k0.cls", b"3")])
    assert f"{torn}: key 'k0' comes again at byte" in verify_folder(tmp_path / "b").problems[0]
    write_tar(tmp_path / "c/train-0.tar", members)
    write_tar(tmp_path / "c/train-1.tar", foreign_members(2, 4))
    write_tar(tmp_path / "c/val-0.tar", foreign_members(1, 1))
    verdict = verify_folder(tmp_path / "c")
    assert verdict.problems == [f"{tmp_path}/c/train-1.tar: key k2 is also in train-0.tar"]
    assert "1 keys stand in more than one split" in verdict.notes


def test_equal_pictures_are_noted_within_and_across_shards(tmp_path: Path):
    same = file_bytes(picture(77, (16, 16)), "JPEG")
    first, second = foreign_members(0, 4), foreign_members(4, 4)
    first[3] = (first[3][0], same)
    second[0], second[6] = (second[0][0], same), (second[6][0], same)
    write_tar(tmp_path / "train-0.tar", first)
    write_tar(tmp_path / "train-1.tar", second)
    verdict = verify_folder(tmp_path)
    assert verdict.problems == []
    assert verdict.notes[0] == "2 pictures are equal to an earlier one, byte for byte"
    assert verdict.notes[1] == "equal pictures: train-0.tar:k1, train-1.tar:k4, train-1.tar:k6"


def test_missing_members_are_named(tmp_path: Path):
    members = foreign_members(0, 6)
    left = [m for m in members if m[0] not in ("k1.jpg", "k2.json", "k3.txt")]
    write_tar(tmp_path / "train-0.tar", left)
    assert [p.removeprefix(f"{tmp_path}/train-0.tar:") for p in verify_folder(tmp_path).problems] == [
        "k1: has no picture",
        "k2: has no .json",
        "k3: has no .txt",
    ]


def relabelled(record: bytes, count: object) -> bytes:
    content = json.loads(record)
    return json.dumps({**content, "labels": {**content["labels"], "count": count}}).encode()


def rewrite(folder: Path, change: Callable[[str, dict[str, bytes]], dict[str, bytes]]) -> None:
    """The first shard of split test, with changed members and a right index: what a faulty writer leaves."""
    manifest = read_manifest(folder)
    info = manifest.splits["test"].shards[0]
    data = (folder / info.file).read_bytes()
    samples = []
    for sample in scan_tar(folder / info.file):
        members = {name: data[start : start + size] for name, (start, size) in sample.members.items()}
        samples.append((sample.key, change(sample.key, members)))
    changed = commit_shard(folder, info.file, samples, task="t", facts={})
    split = manifest.splits["test"].model_copy(update={"shards": (changed, *manifest.splits["test"].shards[1:])})
    manifest = manifest.model_copy(update={"splits": {**manifest.splits, "test": split}})
    (folder / "dataset.json").write_text(json.dumps(manifest.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {k: v for k, v in m.items() if k != "txt"}, "has no .txt"),
        (lambda m: {**m, "txt": b"something else"}, "KEY.txt is not the finest caption"),
        (lambda m: {**m, "png": file_bytes(picture(0, (8, 16)))}, "8 x 16 pixels instead of 16 x 16"),
        (lambda m: {**m, "png": m["png"][:-30]}, "damaged image"),
        (lambda m: {**m, "json": relabelled(m["json"], "four")}, "label 'count' has the unknown class 'four'"),
        (lambda m: {**m, "json": relabelled(m["json"], 3)}, "label 'count' has the unknown class 3"),
    ],
)
def test_what_a_faulty_writer_leaves_is_found(tmp_path: Path, change, message):
    scenes_folder(tmp_path / "d", train=4, test=4)
    rewrite(tmp_path / "d", lambda key, members: change(members) if key.endswith("2") else members)
    problems = verify_folder(tmp_path / "d").problems
    assert len(problems) == 1
    assert "scenes-test-000000.tar:test-00000002: " in problems[0]
    assert message in problems[0]


def test_processes_find_the_same(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 3)[:-1])
    write_tar(tmp_path / "train-1.tar", foreign_members(2, 3))
    one, two = verify_folder(tmp_path), verify_folder(tmp_path, processes=2)
    assert one == two
    assert len(one.problems) == 2


def test_progress_ends_when_every_shard_is_checked(tmp_path: Path):
    """Of foreign tars nobody knows the number of samples beforehand."""
    for number in range(3):
        write_tar(tmp_path / f"{number:05d}.tar", foreign_members(4 * number, 4))
    told: list[Progress] = []
    verdict = verify_folder(tmp_path, on_progress=told.append)
    assert (told[0].shards, told[0].shards_begun, told[0].samples) == (3, 0, 0)
    assert (told[-1].shards_begun, told[-1].shards_done) == (3, 3)
    assert told[-1].samples_done == told[-1].samples_built == told[-1].samples == verdict.samples > 0


def test_ours_miss_nothing_beside_the_shards(tmp_path: Path):
    folder = tmp_path / "d"
    scenes_folder(folder, train=10)
    vocabulary().save(folder / "captions.model")
    write_tar(folder / "scenes-train-000009.tar", foreign_members(0, 1))
    verdict = verify_folder(folder)
    assert verdict.problems == []
    assert any("scenes-train-000009.tar is no part of the data set" in note for note in verdict.notes)
    (folder / "captions.model").write_bytes(b"no model")
    (folder / "scenes-test-000001.tar").unlink()
    text = "\n".join(verify_folder(folder).problems)
    assert "captions.model" in text
    assert "scenes-test-000001.tar: shard is missing" in text


def test_a_walk_of_a_whole_tar_is_its_scan(tmp_path: Path):
    path = write_tar(tmp_path / "train-0.tar", [*foreign_members(0, 4), ("README", b"no ending")])
    walk = walk_tar(path)
    assert walk.samples == scan_tar(path)
    assert (walk.problems, walk.ignored) == ([], 1)


def test_digests_find_what_a_dictionary_finds():
    rng = np.random.default_rng(0)
    shards = [rng.integers(0, 60, size).tolist() for size in (40, 0, 25, 1)]
    found = Digests()
    for number in (2, 0, 3, 1):  # in any order
        found.add(number, digests_of(str(n).encode() for n in shards[number]))
    places: dict[int, list[tuple[int, int]]] = {}
    for number, shard in enumerate(shards):
        for row, value in enumerate(shard):
            places.setdefault(value, []).append((number, row))
    groups = sorted(group for group in places.values() if len(group) > 1)
    extra, named = found.equal(1000)
    assert named == groups
    assert extra == sum(len(group) - 1 for group in groups)
    assert found.equal(2) == (extra, groups[:2])


def test_many_problems_are_counted_not_listed(tmp_path: Path):
    members = [m for m in foreign_members(0, 300) if not m[0].endswith("jpg")]
    write_tar(tmp_path / "train-0.tar", members)
    verdict = verify_folder(tmp_path)
    assert verdict.faults == 300
    assert len(verdict.problems) == 100
    result = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert result.exit_code == 1
    assert "and 280 more" in result.output
    result = CliRunner().invoke(app, ["verify", str(tmp_path), "--json"])
    assert json.loads(result.stdout)["faults"] == 300
