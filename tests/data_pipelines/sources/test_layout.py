"""What a folder is: data in folders of it, splits as folders, configurations, texts as tools name them."""

from __future__ import annotations

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.prepare.preview import preview
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.base import Bad
from data_pipelines.sources.open import SourceConfig, detect_kind, open_source
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.sources.test_folders import put
from tests.data_pipelines.sources.test_tables import everything, opened
from tests.data_pipelines.toy import file_bytes, foreign_members, picture, write_tar


def captions(folder, **options) -> dict[str, list[str]]:
    """Split -> the last caption of every sample, each of which is good and has a name of its own."""
    found = {}
    for split, source in opened(folder, **options).items():
        assert len(set(source.names(0, len(source)))) == len(source)
        found[split] = [pair.captions[-1] for pair in everything(source)]
        assert [pair.captions[-1] for i in range(len(source)) for pair in source.pairs(i, i + 1)] == found[split]
    return found


def pictures_in_parquet(path, texts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": file_bytes(picture(number)), "path": "x.png"} for number in range(len(texts))]
    pq.write_table(pa.table({"image": images, "text": list(texts)}), path)


def test_tars_in_numbered_folders_are_one_set_even_where_names_and_keys_begin_again(tmp_path):
    for number in range(3):
        made = enumerate(foreign_members(2 * number, 2))  # three members each
        members = [(f"k{place // 3}.{name.partition('.')[2]}", data) for place, (name, data) in made]
        write_tar(tmp_path / f"in/{number:02d}/000000.tar", members)
    assert captions(tmp_path / "in") == {"train": [f"fine {n}" for n in range(6)]}
    assert list(opened(tmp_path / "in")["train"].names(1, 3)) == ["00/000000/k1", "01/000000/k0"]
    manifest = prepare(opened(tmp_path / "in"), tmp_path / "out", PrepareConfig(size=8))
    assert (manifest.splits["train"].samples, dict(manifest.splits["train"].dropped)) == (6, {})
    shards = open_shards(tmp_path / "in", "train")
    assert len(shards) == 6
    assert len({shards.place(n) for n in range(6)}) == 6


def test_folders_say_splits_where_names_of_files_do_not(tmp_path):
    for place, first in (("train/a.tar", 0), ("validation/deep/a.tar", 4), ("train/test-0.tar", 6)):
        write_tar(tmp_path / "tars" / place, foreign_members(first, 1))
    assert captions(tmp_path / "tars") == {"train": ["fine 0"], "val": ["fine 4"], "test": ["fine 6"]}
    for split in ("train", "test"):
        for number in range(2):
            put(tmp_path / "tables", {f"{split}/{number}.png": None})
        lines = [json.dumps({"file_name": f"{n}.png", "text": f"{split} {n}"}) for n in range(2)]
        put(tmp_path / "tables", {f"{split}/metadata.jsonl": "\n".join(lines)})
        put(tmp_path / "pictures", {f"data/{split}/x/1.png": None, f"data/{split}/x/1.txt": f"{split} text"})
    assert captions(tmp_path / "tables") == {"train": ["train 0", "train 1"], "test": ["test 0", "test 1"]}
    put(tmp_path / "pictures", {"README.md": "a card", ".git/x.png": b"", "data/__MACOSX/train/x/1.png": b""})
    assert captions(tmp_path / "pictures") == {"train": ["train text"], "test": ["test text"]}
    put(tmp_path / "pictures", {"data/training/1.png": None})
    with pytest.raises(DataError, match="train/ and training/ are both of split train"):
        opened(tmp_path / "pictures")


def test_a_repository_of_parquet_is_one_command(tmp_path):
    texts = {"train-00000-of-00002": "ab", "train-00001-of-00002": "cd", "validation-00000-of-00001": "e"}
    for name, letters in texts.items():
        pictures_in_parquet(tmp_path / f"data/{name}.parquet", letters)
    put(tmp_path, {"README.md": "a card", ".gitattributes": "", "assets/shown.png": None})
    assert captions(tmp_path) == {"train": ["a", "b", "c", "d"], "val": ["e"]}


def test_tables_of_several_folders_keep_their_samples_apart(tmp_path):
    for folder in ("part-0", "part-1"):
        pictures_in_parquet(tmp_path / f"parquet/{folder}/t.parquet", [f"{folder} {n}" for n in range(2)])
        table = f"file_name,text\n1.png,picture of {folder}\n"
        put(tmp_path / "csv", {f"{folder}/1.png": None, f"{folder}/metadata.csv": table})
    assert captions(tmp_path / "parquet") == {"train": ["part-0 0", "part-0 1", "part-1 0", "part-1 1"]}
    assert captions(tmp_path / "csv") == {"train": ["picture of part-0", "picture of part-1"]}
    images = [pair.image for pair in everything(opened(tmp_path / "csv")["train"])]
    assert images == [(tmp_path / f"csv/part-{n}/1.png").read_bytes() for n in range(2)]


@pytest.mark.parametrize(
    "names",
    [
        ("en/train-00000-of-00001.parquet", "de/train-00000-of-00002.parquet"),
        ("en/train/0.parquet", "de/train/0.parquet"),
        ("512/t.parquet", "1024/t.parquet"),
        ("en/train_en.parquet", "de/train_de.parquet"),
        ("train.parquet", "de/train.parquet"),
    ],
)
def test_configurations_are_never_mixed_in_silence(tmp_path, names):
    for name in names:
        pictures_in_parquet(tmp_path / name, [name])
    if "/" not in names[0]:
        with pytest.warns(UserWarning, match=r"1 in deeper folders are left aside, as de/train\.parquet"):
            assert captions(tmp_path) == {"train": [names[0]]}
        return
    with pytest.raises(DataError, match=r"(de|1024)\S* and (en|512).*not mixed: name one of them, as /"):
        opened(tmp_path)
    folder = names[0].partition("/")[0]
    assert captions(tmp_path / folder) == {"train": [names[0]]}


def test_data_of_several_kinds_is_refused_by_name(tmp_path):
    write_tar(tmp_path / "mixed/00/0.tar", foreign_members(0, 1))
    pictures_in_parquet(tmp_path / "mixed/train.parquet", ["a"])
    with pytest.raises(DataError, match=r"several kinds.*\(parquet, tars\).*train\.parquet; tars, as 00/0\.tar"):
        opened(tmp_path / "mixed")
    assert captions(tmp_path / "mixed", kind="tars") == {"train": ["fine 0"]}
    write_tar(tmp_path / "tars/0.tar", foreign_members(0, 1))
    put(tmp_path / "tars", {"1.png": None})
    with pytest.warns(UserWarning, match=r"pictures are left aside, as 1\.png"):
        assert detect_kind(tmp_path / "tars") == "tars"
    put(tmp_path / "tars", {"1.txt": "a caption"})
    with pytest.raises(DataError, match=r"several kinds.*pictures, as 1\.png"):
        detect_kind(tmp_path / "tars")
    put(tmp_path / "apart", {"images/1.png": None, "notes/t.csv": "file_name,text\n1.png,x\n"})
    with pytest.raises(DataError, match=r"several kinds.*csv, as notes/t\.csv"):
        detect_kind(tmp_path / "apart")


def test_shards_made_in_the_folder_of_their_source_are_no_part_of_it(tmp_path):
    put(tmp_path, {"1.png": None, "1.txt": "a"})
    for _ in range(2):
        manifest = prepare(opened(tmp_path), tmp_path / "shards", PrepareConfig(size=8))
        assert manifest.splits["train"].samples == 1


@pytest.mark.parametrize("name", ["1.TXT", "1.png.txt", "1.caption", "1.Caption", "1.png.json", "1.JSON"])
def test_texts_beside_pictures_as_tools_name_them(tmp_path, name):
    text = json.dumps({"caption": "a cat"}) if name.lower().endswith("json") else "a cat"
    put(tmp_path, {"10_cat/1.png": None, f"10_cat/{name}": text})
    source = opened(tmp_path)["train"]
    assert (source.kind, [pair.captions for pair in everything(source)]) == ("sidecar", [("a cat",)])
    assert "left_aside" not in source.identity()["records"]
    before = source.identity()
    put(tmp_path, {f"10_cat/{name}": text.replace("cat", "small dog")})
    assert opened(tmp_path)["train"].identity() != before


def test_a_caption_file_counts_before_the_tags(tmp_path):
    put(tmp_path, {"1.png": None, "1.caption": "a cat on\na mat", "1.txt": "cat, mat"})
    assert captions(tmp_path) == {"train": ["a cat on\na mat"]}
    assert captions(tmp_path, captions="txt") == {"train": ["cat, mat"]}


def test_texts_in_a_folder_of_their_own_are_named_with_the_way_out(tmp_path):
    put(tmp_path, {f"{place}/{n}.{e}": None for n in range(3) for place, e in (("images", "png"), ("labels", "txt"))})
    with pytest.raises(DataError, match=r"pictures of images/ have texts of their names in labels/.*move these texts"):
        opened(tmp_path)


def test_the_content_of_a_file_says_that_it_is_a_picture(tmp_path):
    whole = {"a/1": None, "a/2.webp_large": None, "b/3.orig": None}
    put(
        tmp_path,
        {**whole, "b/4.psd": "8BPS", "b/5.py": "print()", "b/.6": b"\x89PNG\r\n", "b/Thumbs.db": b"\xff\xd8\xff"},
    )
    source = opened(tmp_path)["train"]
    assert list(source.names(0, len(source))) == ["a/1", "a/2", "b/3"]
    assert not any(isinstance(item, Bad) for item in everything(source))
    assert source.identity()["records"]["left_aside"] == {"psd_files_that_are_not_read": 1}
    for split in ("train", "val"):
        put(tmp_path / "splits", {f"{split}/1": None, f"{split}/1.txt": f"of {split}"})
    assert captions(tmp_path / "splits") == {"train": ["of train"], "val": ["of val"]}
    assert captions(tmp_path / "splits/val") == {"train": ["of val"]}


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
def test_pictures_as_base64_text_are_read_and_named_by_their_place(tmp_path, before):
    images = [file_bytes(picture(number)) for number in range(2)]
    cells = [before + base64.b64encode(image).decode() for image in images]
    lines = [{"image": cell, "text": "x"} for cell in [*cells, before + "iVBORw0KG" + "*" * 5000]]
    put(tmp_path, {"t.jsonl": "\n".join(map(json.dumps, lines))})
    source = open_source(tmp_path, SourceConfig())["train"]
    *pairs, bad = everything(source)
    assert [pair.image for pair in pairs] == images
    assert (bad.reason, bad.source) == ("damaged base64 text", "t.jsonl line 3")
    assert list(source.names(0, 3)) == [f"t.jsonl line {n + 1}" for n in range(3)]


def test_a_split_that_no_sample_falls_into_is_left_out_and_named(tmp_path):
    put(tmp_path, {f"{n}.{ending}": None for n in range(3) for ending in ("png", "txt")})
    with pytest.warns(UserWarning, match="none of its 3 samples falls into split val, which is left out"):
        assert set(opened(tmp_path, val_share=1e-9)) == {"train"}


def test_no_message_shows_megabytes_of_a_cell(tmp_path):
    """A cell that is no path, a key, a caption field, a column: what is shown of each is short; what is kept, too."""
    huge = "x" * 300_000
    lines = [{"image": huge, "text": "t"}, {"image": f"https://{huge}", "text": "t"}, {"image": "a.png", "text": 7}]
    put(tmp_path / "in", {"t.jsonl": "\n".join(map(json.dumps, [*({"image": "0.png", "text": "t"},) * 20, *lines]))})
    source = opened(tmp_path / "in")["train"]
    for item in everything(source):
        assert len(str(item)) < 260
        assert max(map(len, (item.source, item.reason, item.detail))) <= 200
    assert all(len(shown.source + shown.problem) < 460 for shown in preview({"train": source}, PrepareConfig()))
    for config in (PrepareConfig(), PrepareConfig(max_bad_run=2)):
        with pytest.raises(DataError) as raised:
            prepare({"train": source}, tmp_path / f"out{config.max_bad_run}", config)
        assert len(str(raised.value)) < 800
    columns = {f"column {n} {huge[: 1000 * n]}": "x" for n in range(100)}
    put(tmp_path / "wide", {"t.jsonl": json.dumps(columns)})
    with pytest.raises(ConfigError) as wide:
        opened(tmp_path / "wide")
    assert len(str(wide.value)) < 2500
    write_tar(tmp_path / "t/0.tar", [(f"{huge[:150]}/{n}.txt", b"x") for n in (0, 1, 0)])
    with pytest.raises(DataError, match="comes twice") as twice:
        opened(tmp_path / "t")
    assert huge[:100] not in str(twice.value)


@pytest.mark.parametrize("folders", [("train", "test"), ("cats", "test")])
def test_a_table_of_metadata_above_folders_of_splits_is_cut_by_them(tmp_path, folders):
    names = [f"{folder}/{n}.png" for folder in folders for n in range(2)]
    put(tmp_path, dict.fromkeys(names))
    lines = [json.dumps({"file_name": name, "text": name}) for name in names]
    put(tmp_path, {"metadata.jsonl": "\n".join(lines)})
    by_folder = {folder: [name for name in names if name.startswith(folder)] for folder in folders}
    assert captions(tmp_path) == (by_folder if "train" in folders else {"train": names})
    assert captions(tmp_path, split="train") == {"train": names}
