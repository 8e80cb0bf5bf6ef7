"""Streams: only what is allowed is opened, nothing is unpickled, and a tar that ends too early is noticed."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from itertools import islice
from pathlib import Path

import pytest
import torch

from data_pipelines.pictures.augment import AugmentConfig
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.stream import StreamConfig, StreamLoader
from data_pipelines.reading.streamed_record import members_read
from data_pipelines.samples import ImageTextBatch
from data_pipelines.sources.records import Fields
from data_pipelines.tars.remote import expand, scheme_of
from data_pipelines.tars.stream import stream_samples
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.toy import foreign_members, vocabulary, write_tar

TOKENIZER = vocabulary()
FIELDS = Fields(labels=("year",))
FORMS = {
    "pipe": lambda path: f"pipe:cat '{path}'",
    "path": str,
}


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for number in range(3):
        write_tar(tmp_path / f"a b/x-{number:03d}.tar", foreign_members(10 * number, 10))
    return tmp_path / "a b"


def pattern(folder: Path, form: str = "pipe") -> str:
    return FORMS[form](folder / "x-{000..002}.tar")


def stream(shards: str, *, batch: int = 4, seed: int = 0, rank: int = 0, world: int = 1, **changes) -> StreamLoader:
    own = {name: changes.pop(name) for name in list(changes) if name in StreamConfig.model_fields}
    source = StreamConfig(**{"shards": shards, "num_samples": 30, "allow_remote": True, "shuffle_buffer": 8, **own})
    settings = {"image_size": 16, "levels": 2, "fields": FIELDS, "on_bad_sample": "error", **changes}
    return StreamLoader(
        source, TOKENIZER, LoaderConfig(**settings), seed=seed, global_batch=batch, rank=rank, world=world
    )


def take(loader: StreamLoader, count: int, start: int = 0) -> list[ImageTextBatch]:
    return list(islice(loader.iterate(start), count))


def keys(batches: list[ImageTextBatch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_holds_what_a_folder_of_the_same_tars_holds(tars, form):
    local = read_split(tars, "train", TOKENIZER, config=LoaderConfig(fields=FIELDS))
    place = {key: row for row, key in enumerate(local.keys)}
    for batch in take(stream(pattern(tars, form)), 6):
        rows = [place[key] for key in batch.keys]
        assert torch.equal(batch.images, local.images[rows])
        assert torch.equal(batch.text_ids, local.text_ids[rows])
        assert torch.equal(batch.caption_ids, local.caption_ids[rows])
        assert torch.equal(batch.labels["year"], local.labels["year"][rows])
        assert batch.captions == [local.captions[row] for row in rows]


def test_a_share_of_samples_has_captions_in_a_stream_as_in_a_folder(tars):
    local = read_split(tars, "train", TOKENIZER, config=LoaderConfig(fields=FIELDS, captioned_share=0.5))
    told = {key for key, captions in zip(local.keys, local.captions, strict=True) if captions}
    assert 0 < len(told) < 30
    for batch in take(stream(pattern(tars), captioned_share=0.5), 6):
        assert [bool(captions) for captions in batch.captions] == [key in told for key in batch.keys]
        assert batch.level_mask.any(1).tolist() == [key in told for key in batch.keys]


def test_the_first_samples_come_in_the_order_of_the_tars(tars):
    assert stream(pattern(tars)).first(13).keys == [f"k{n}" for n in range(13)]
    assert len(stream(pattern(tars)).first(99)) == 30


def test_a_stream_is_a_function_of_seed_start_rank_and_worker(tars):
    name = pattern(tars, "path")
    first = keys(take(stream(name), 5))
    assert keys(take(stream(name), 5)) == first
    assert keys(take(stream(name, seed=1), 5)) != first
    assert keys(take(stream(name, rank=1, world=2, batch=8), 5)) != first
    with pytest.warns(UserWarning, match="no exact position: step 3"):
        assert keys(take(stream(name), 5, start=3)) != first
    assert set(keys(take(stream(name), 60))) == {f"k{n}" for n in range(30)}
    assert first != sorted(first), "mixed"


def test_workers_take_turns(tars):
    name = pattern(tars)
    got = take(stream(name, num_workers=2), 6)
    assert keys(take(stream(name, num_workers=2), 6)) == keys(got)
    alone = [keys(take(stream(name, rank=lane, world=2, batch=8), 3)) for lane in range(2)]
    assert keys(got[0::2]) == alone[0], "a lane is a lane: two ranks with one worker, or one rank with two"
    assert keys(got[1::2]) == alone[1]


def test_a_visit_of_a_sample_is_augmented_in_its_own_way(tars):
    loader = stream(pattern(tars, "path"), augment=AugmentConfig(crop="resized", flip=0.5))
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in take(loader, 60):
        for key, image in zip(batch.keys, batch.images, strict=True):
            seen.setdefault(key, []).append(image)
    assert all(len(images) > 1 for images in seen.values())
    assert sum(torch.equal(images[0], images[1]) for images in seen.values()) < 10, "few boxes come twice"
    assert torch.equal(loader.first(3).images, stream(pattern(tars, "path")).first(3).images)


@pytest.mark.parametrize("name", ["pipe:touch {marker}", "s3://b/{marker}.tar", "https://h/x.tar", "hf://d/x.tar"])
def test_nothing_is_opened_that_is_not_allowed(tmp_path, name):
    shards = name.format(marker=tmp_path / "marker")
    with pytest.raises(ConfigError, match=r"must be allowed: `allow_remote=true`"):
        stream(shards, allow_remote=False)
    assert not (tmp_path / "marker").exists()


def test_unknown_schemes_and_braces_are_named():
    assert expand(["a-{00..02}.tar"], False) == ("a-00.tar", "a-01.tar", "a-02.tar")
    assert scheme_of("C.tar") is None
    with pytest.raises(ConfigError, match="nothing:// cannot be read"):
        expand(["nothing://h/x.tar"], True)
    with pytest.raises(ConfigError, match="Unbalanced"):
        expand(["x-{0..1"], False)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_is_never_executed(tmp_path):
    marker = tmp_path / "marker"
    evil = pickle.dumps(Evil(marker))
    members = foreign_members(0, 4)
    names = ("pkl", "pickle", "pth", "pyd", "cls", "index")
    members += [("k9.jpg", members[0][1]), *((f"k9.{name}", evil) for name in names)]
    path = write_tar(tmp_path / "x.tar", members)
    batch = stream(f"pipe:cat {path}").first(9)
    assert batch.keys == ["k0", "k1", "k2", "k3", "k9"]
    assert not marker.exists()
    members[0] = ("k0.jpg", evil)
    write_tar(path, members)
    with pytest.raises(DataError, match=r"x\.tar:k0: not an image"):
        stream(f"pipe:cat {path}").first(9)
    assert not marker.exists()
    pickle.loads(evil)
    assert marker.exists(), "the trap works"


CUTS = (
    *("inside a member", "between two samples", "inside a sample, between two members", "inside a header"),
    *("a header overwritten", "empty", "garbage"),
)


def cut_points(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        infos = tar.getmembers()
    sample, member = infos[12], infos[13]  # the fifth sample, its second member
    overwritten = bytearray(data)
    overwritten[sample.offset : sample.offset + 512] = b"\xff" * 512
    return {
        "inside a member": data[: sample.offset_data + sample.size // 2],
        "between two samples": data[: sample.offset],
        "inside a sample, between two members": data[: member.offset],
        "inside a header": data[: member.offset + 100],
        "a header overwritten": bytes(overwritten),
        "empty": b"",
        "garbage": b"<html>not found</html>" * 100,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("damage", CUTS)
def test_a_tar_that_ends_too_early_is_named(tmp_path, damage, form):
    path = write_tar(tmp_path / "x.tar", foreign_members(0, 10))
    assert len(list(stream_samples(FORMS[form](path), members_read(Fields())))) == 10
    path.write_bytes(cut_points(path)[damage])
    found = []
    with pytest.raises(DataError, match=r"x\.tar'?: "):
        found += stream_samples(FORMS[form](path), members_read(Fields()))
    assert len(found) <= 4, "no sample of which a part is missing"
    assert all(set(members) == {"jpg", "json", "txt"} for _, members in found)


def test_a_command_that_fails_is_named(tmp_path):
    path = write_tar(tmp_path / "x.tar", foreign_members(0, 3))
    with pytest.raises(DataError, match=r"cat .*x\.tar; exit 3: "):
        list(stream_samples(f"pipe:cat {path}; exit 3", members_read(Fields())))
    with pytest.raises(DataError, match="nowhere"):
        list(stream_samples(str(tmp_path / "nowhere.tar"), members_read(Fields())))


def test_damaged_shards_are_skipped_only_where_asked_and_only_so_many(tars):
    path = tars / "x-001.tar"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match=r"x-001\.tar"):
        take(stream(pattern(tars)), 40)
    with pytest.warns(UserWarning, match=r"x-001\.tar.*"):
        got = keys(take(stream(pattern(tars), on_bad_shard="skip"), 60))
    assert {f"k{n}" for n in (*range(10), *range(20, 30))} <= set(got)
    with pytest.raises(DataError, match=r"1 damaged shards, the last one: .*x-001\.tar"):
        take(stream(pattern(tars), on_bad_shard="skip", max_bad_shards=0), 40)


def test_undecodable_samples_are_left_out_and_counted(tars):
    members = foreign_members(0, 10)
    members[3] = ("k1.jpg", members[3][1][:60])
    write_tar(tars / "x-000.tar", members)
    with pytest.raises(DataError, match=r"x-000\.tar'?:k1: .*on_bad_sample: skip"):
        take(stream(pattern(tars)), 40)
    loader = stream(pattern(tars), on_bad_sample="skip", max_bad_share=0.1)
    with pytest.warns(UserWarning, match=r"x-000\.tar'?:k1"):
        got = take(loader, 60)
    assert all(len(batch) == 4 for batch in got)
    assert "k1" not in keys(got)
    assert len(loader.bad.places) == 1
    with pytest.raises(DataError, match=r"above max_bad_share=0\.02"):
        take(stream(pattern(tars), on_bad_sample="skip"), 60)


def test_what_a_stream_cannot_know_must_be_said(tars):
    name = pattern(tars)
    for key in ("image_size", "levels"):
        with pytest.raises(ConfigError, match=f"`{key}`: must be set"):
            stream(name, **{key: None})
    with pytest.raises(DataError, match="label 'group' is a word"):
        take(stream(name, fields=Fields(labels=("group",))), 1)


def test_a_tokenizer_run_takes_a_stream(tars, tmp_path):
    TOKENIZER.save(tmp_path / "captions.model")
    words = [
        *("data.folder=null", f"out={tmp_path / 'run'}"),
        *("objective.contrast.level_starts=[1,2]", f"data.stream.shards={pattern(tars)}", "data.stream.num_samples=30"),
        *("data.loader.image_size=16", "data.loader.levels=2", "model.image_size=16", "train.batch=8"),
        *(f"data.captions={tmp_path / 'captions.model'}", "train.images=64", "train.warmup_images=8"),
    ]
    with pytest.raises(ConfigError, match="`allow_remote=true`"):
        load_kind(TokenizerRun, "tests/configs/tiny-tokenizer.yaml", words).build()
    run = load_kind(TokenizerRun, "tests/configs/tiny-tokenizer.yaml", [*words, "data.stream.allow_remote=true"])
    assert isinstance(run, TokenizerRun)
    objective, loader = run.build()
    batch = next(iter(loader.iterate(0)))
    assert torch.isfinite(objective(batch)["loss"])
    for wrong, message in (
        ([*words, "data.folder=x"], "set either data.folder"),
        (words[:2], "set either data.folder"),
        (["data.folder=s3://x/y"], "streams are named in data.stream.shards"),
        ([word for word in words if "captions" not in word], "name the captions model"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_kind(TokenizerRun, "tests/configs/tiny-tokenizer.yaml", wrong)
