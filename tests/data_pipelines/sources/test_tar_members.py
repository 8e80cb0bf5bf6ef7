"""Which members of tars are a sample: dots in names, members with two endings, keys that several shards share."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import pytest

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.prepare.tasks import make_tasks
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.base import Bad, Pair
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.sources.records import Fields
from data_pipelines.sources.tar_source import TarSource, tar_source, tar_sources
from data_pipelines.tars.index import TarSample
from data_pipelines.tars.names import by_whole_names
from seqtok.commands.data.plan import left_out
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.toy import file_bytes, picture, write_tar

JPEG = [file_bytes(picture(n, (16, 16)), "JPEG") for n in range(12)]


def pairs_of(*names: str, first: int = 0) -> list[tuple[str, bytes]]:
    return [
        member
        for n, name in enumerate(names, first)
        for member in ((f"{name}.jpg", JPEG[n % 12]), (f"{name}.txt", f"text {n}".encode()))
    ]


def everything(source: TarSource) -> list[Pair | Bad]:
    return list(source.pairs(0, len(source)))


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ("jpg seg.png txt", {"k": "jpg seg.png txt"}),
        ("jpg json mask.png mask.txt", {"k": "jpg json mask.png mask.txt"}),
        ("input.jpg outputs.txt", {"k": "input.jpg outputs.txt"}),
        ("0.jpg 0.txt 1.jpg 1.txt", {"k.0": "jpg txt", "k.1": "jpg txt"}),
        ("jpg txt 0.jpg 0.txt", {"k": "jpg txt", "k.0": "jpg txt"}),
        ("0.jpg 1.jpg", {"k.0": "jpg", "k.1": "jpg"}),
        ("json 0.jpg 1.jpg", {"k": "json 0.jpg 1.jpg"}),
        ("final.v2.jpg final.v2.cls", {"k.final.v2": "jpg cls"}),
        ("0.jpg 0.txt 0.seg.png", {"k.0": "jpg txt seg.png"}),
        ("0.jpg 0.txt npy", {"k": "npy", "k.0": "jpg txt"}),
        ("txt", {"k": "txt"}),
        ("", {"k": ""}),
    ],
)
def test_members_of_one_whole_name_are_a_sample(members: str, told: dict[str, str]):
    sample = TarSample("k", {name: (n, 1) for n, name in enumerate(members.split())})
    found = by_whole_names(sample)
    assert {part.key: " ".join(part.members) for part in found} == told
    assert sorted(span for part in found for span in part.members.values()) == sorted(sample.members.values())


def test_dots_in_names_are_kept_when_preparing(tmp_path: Path):
    write_tar(tmp_path / "in/train-0.tar", pairs_of("a", "v1.0", "v1.1", "v1.2.beta", "d.ir/b"))
    (source,) = tar_sources(tmp_path / "in", Fields()).values()
    assert list(source.names(0, len(source))) == ["a", "v1.0", "v1.1", "v1.2.beta", "d.ir/b"]
    assert [pair.captions for pair in everything(source)] == [(f"text {n}",) for n in range(5)]
    info = prepare({"train": source}, tmp_path / "out", PrepareConfig(size=16)).splits["train"]
    assert (info.samples, dict(info.dropped)) == (5, {})
    shards = open_shards(tmp_path / "out", "train")
    assert [shards.key(n) for n in range(5)] == ["a", "v1_0", "v1_1", "v1_2_beta", "d_ir_b"]


def test_what_is_known_of_plain_tars_is_what_it_was(tmp_path: Path):
    """Data sets that were begun by an earlier version go on: nothing new stands in what identifies their source."""
    write_tar(tmp_path / "train-0.tar", pairs_of("a", "b"))
    identity = tar_source([tmp_path / "train-0.tar"], Fields()).identity()
    assert identity.keys() == {"kind", "shards", "fields", "skipped_shards"}
    assert identity["fields"].keys() == {"captions", "labels", "image", "key", "pyramid", "max_levels"}


MEMBERS = Fields(image_member="input", caption_members=("title.txt", "outputs.json"))


def test_members_are_taken_by_their_names(tmp_path: Path):
    members = [
        *(("s0.input.jpg", JPEG[0]), ("s0.title.txt", b"short"), ("s0.outputs.json", b'["longer", "longest"]')),
        *(("s1.INPUT.jpeg", JPEG[1]), ("s1.Title.txt", b"one\ntwo"), ("s1.txt", b"not asked for")),
        *(("s2.input.png", JPEG[2]), ("s2.outputs.json", b'{"caption": "from a record"}'), ("s2.jpg", JPEG[3])),
        *(("s3.target.jpg", JPEG[4]), ("s3.title.txt", b"no input")),
    ]
    write_tar(tmp_path / "train-0.tar", members)
    (source,) = tar_sources(tmp_path, MEMBERS).values()
    found = everything(source)
    assert [item.captions if isinstance(item, Pair) else item.reason for item in found] == [
        ("short", "longer", "longest"),
        ("one", "two"),
        ("from a record",),
        "no picture",
    ]
    assert [item.image for item in found if isinstance(item, Pair)] == JPEG[:3]
    shards = open_shards(tmp_path, "train", MEMBERS, max_bad_share=0.5)
    assert [shards.read_image(n) for n in range(3)] == JPEG[:3]
    assert shards.record(0).captions == ("short", "longer", "longest")


def test_who_names_no_members_is_told_how(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [("s0.input.jpg", JPEG[0]), ("s0.outputs.txt", b"x")])
    (found,) = everything(next(iter(tar_sources(tmp_path, Fields()).values())))
    assert isinstance(found, Bad)
    assert "['input.jpg', 'outputs.txt']; `fields.image_member` names" in found.detail


def test_another_ending_of_captions_tells_whole_names_apart_too(tmp_path: Path):
    members = [(name.replace(".txt", ".caption"), data) for name, data in pairs_of("v1.0", "v1.1")]
    write_tar(tmp_path / "train-0.tar", members)
    (source,) = tar_sources(tmp_path, Fields(caption_members=(".CAPTION",))).values()
    assert [pair.captions for pair in everything(source)] == [("text 0",), ("text 1",)]


def test_members_are_for_tars_and_captions_have_one_place(tmp_path: Path):
    (tmp_path / "t.csv").write_text("image,caption\na.jpg,x\n")
    with pytest.raises(ConfigError, match="image_member"):
        open_source(tmp_path / "t.csv", SourceConfig(fields=Fields(image_member="input.jpg")))
    with pytest.raises(ConfigError, match="either in a field or in members"):
        Fields.parse({"captions": "title", "caption_members": ["txt"]})


@pytest.mark.parametrize(
    ("record", "captions"),
    [(["coarse", "fine"], ("coarse", "fine")), ("one", ("one",)), ([], ()), ([{"caption": "x"}], None), (7, None)],
)
def test_a_record_may_be_captions_alone(tmp_path: Path, record: object, captions: tuple[str, ...] | None):
    write_tar(tmp_path / "train-0.tar", [("a.jpg", JPEG[0]), ("a.json", json.dumps(record).encode())])
    for fields in (Fields(), Fields(captions="title")):
        (found,) = everything(tar_source([tmp_path / "train-0.tar"], fields))
        if captions is None:
            assert isinstance(found, Bad)
            assert found.reason == "KEY.json is not an object"
        else:
            assert isinstance(found, Pair)
            assert found.captions == captions


def test_keys_that_start_again_get_the_name_of_their_shard(tmp_path: Path):
    for shard in range(3):
        write_tar(tmp_path / f"in/{shard:03d}.tar", pairs_of("0000", "0001", first=2 * shard))
    (source,) = tar_sources(tmp_path / "in", Fields()).values()
    expected = [f"{shard:03d}/{key}" for shard in range(3) for key in ("0000", "0001")]
    assert list(source.names(0, 6)) == expected
    assert list(source.names(3, 5)) == expected[3:5]
    info = prepare({"train": source}, tmp_path / "out", PrepareConfig(size=16)).splits["train"]
    assert (info.samples, dict(info.dropped)) == (6, {})
    shards = open_shards(tmp_path / "in", "train")
    assert [shards.key(n) for n in range(6)] == expected
    assert [shards.record(n).key for n in range(6)] == expected
    assert any("the shard's name is part of each" in line for line in left_out({"train": source}))


def test_only_keys_that_come_again_get_it(tmp_path: Path):
    paths = [write_tar(tmp_path / f"{shard}.tar", pairs_of(f"{shard}0", f"{shard}1")) for shard in range(3)]
    assert list(tar_source(paths, Fields()).names(0, 6)) == ["00", "01", "10", "11", "20", "21"]


def test_shards_of_one_name_in_two_folders_are_told_apart(tmp_path: Path):
    paths = [write_tar(tmp_path / f"{folder}/0.tar", pairs_of("k", first=n)) for n, folder in enumerate("ab")]
    assert list(tar_source(paths, Fields()).names(0, 2)) == ["a/0/k", "b/0/k"]


@pytest.mark.parametrize("restarting", [False, True])
def test_a_copy_of_a_shard_is_a_duplicate_and_named(tmp_path: Path, restarting: bool):
    """Another header, another order of shards: what counts is keys, sizes and contents."""
    shards = [pairs_of("0", "1"), pairs_of("0" if restarting else "2", "3", first=2), pairs_of("0", "1")]
    paths = [write_tar(tmp_path / f"in/{n}.tar", members) for n, members in enumerate(shards)]
    source = tar_source(paths, Fields())
    names = list(source.names(0, 6))
    assert names[:2] == names[4:]
    assert len(set(names)) == 4
    info = prepare({"train": source}, tmp_path / "out", PrepareConfig(size=16, max_bad_share=0.5)).splits["train"]
    assert (info.samples, dict(info.dropped)) == (4, {"duplicate name": 2})
    assert "train: shard 2.tar is a copy of 0.tar: its samples are duplicates" in list(left_out({"train": source}))
    with pytest.warns(UserWarning, match=r"duplicate name: the shard is a copy of 0\.tar"):
        read = open_shards(tmp_path / "in", "train", max_bad_share=0.5)
    assert len({read.key(n) for n in range(len(read))}) == len(read) == 4


@pytest.mark.parametrize("equal", [0, 1])
def test_equal_sizes_are_no_copy(tmp_path: Path, equal: int):
    """Raw pictures that all have one size, the first ones equal, in shards whose keys start again."""
    seeds = [[0, 1], [0, 11] if equal else [10, 11]]
    shards = [[(f"{n}.bmp", file_bytes(picture(seed, (8, 8)), "BMP")) for n, seed in enumerate(own)] for own in seeds]
    paths = [write_tar(tmp_path / f"{n}.tar", members) for n, members in enumerate(shards)]
    source = tar_source(paths, Fields())
    assert source.repeats.copies == {}
    assert list(source.names(0, 4)) == ["0/0", "0/1", "1/0", "1/1"]


def test_a_copy_of_a_source_carries_no_index_and_reads_the_same(tmp_path: Path):
    """What every worker process gets does not grow with the samples."""
    paths = [write_tar(tmp_path / f"{n}.tar", pairs_of(*(f"v{k}.{n}" for k in range(300)))) for n in range(4)]
    source, few = tar_source(paths, Fields()), tar_source(paths[:1], Fields())
    assert len(pickle.dumps(source)) < len(pickle.dumps(few)) + 1000
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source) == 1200
    for start, stop in ((0, 3), (299, 302), (890, 905), (1199, 1200), (0, 3)):
        assert list(copy.names(start, stop)) == list(source.names(start, stop))
        assert list(copy.pairs(start, stop)) == list(source.pairs(start, stop))
    write_tar(paths[1], pairs_of("other"))
    with pytest.raises(DataError, match=r"1\.tar: has changed: 1 samples, not 300"):
        list(pickle.loads(pickle.dumps(source)).names(300, 301))


def test_scanning_one_large_tar_takes_few_bytes_a_sample(tmp_path: Path):
    """Some 1,200 where each sample is an object with its table of members."""
    count = 5000
    path = write_tar(tmp_path / "0.tar", [(f"{n:09d}.{kind}", b"x") for n in range(count) for kind in ("jpg", "txt")])
    tracemalloc.start()
    source = tar_source([path], Fields())
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source) == count
    assert held / count < 9 + 2 * 18 + 17 + 20
    assert peak / count < 350


def test_memory_of_sharding_tars_anew_is_bounded_by_a_shard_and_some_bytes_a_sample(tmp_path: Path):
    """Up to the tasks; what follows is done shard by shard."""
    each, shards = 500, 12
    for shard in range(shards):
        names = [f"{shard:03d}{n:06d}.{kind}" for n in range(each) for kind in ("jpg", "txt")]
        write_tar(tmp_path / f"{shard}.tar", [(name, b"x") for name in names])
    tar_sources(tmp_path, Fields())  # what is loaded once
    tracemalloc.start()
    tasks = make_tasks(tar_sources(tmp_path, Fields()), PrepareConfig())
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tasks.samples == each * shards
    assert peak < 400 * each + (82 + 60) * each * shards + (1 << 20)
    assert held < (82 + 60) * each * shards
