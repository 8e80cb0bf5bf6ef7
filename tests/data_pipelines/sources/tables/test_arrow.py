"""Folders of Hugging Face's `save_to_disk`: read as they lie, a batch at a time."""

from __future__ import annotations

import json
import pickle

import pyarrow as pa
import pytest

from data_pipelines.sources.base import Bad
from data_pipelines.sources.open import SourceConfig, detect_kind, open_source
from data_pipelines.sources.tables.arrow_rows import ArrowRows
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.sources.test_tables import everything, opened, picture_table

FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def save(folder, images, files=2, batch=2, first=0):
    """As `Dataset.save_to_disk` writes it: IPC streams, and JSON beside them."""
    folder.mkdir(parents=True)
    schema = pa.schema([("image", IMAGE), ("text", pa.string()), ("label", pa.int64())])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    names = [f"data-{n:05d}-of-{files:05d}.arrow" for n in range(files)]
    rows = [
        {"image": data and {"bytes": data, "path": "x.png"}, "text": f"no {n}", "label": n % 2}
        for n, data in enumerate(images, first)
    ]
    share = -(-len(rows) // files)
    for n, name in enumerate(names):
        table = pa.Table.from_pylist(rows[n * share : (n + 1) * share], schema=schema)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table, max_chunksize=batch)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None, "_fingerprint": "x"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def test_a_saved_set_and_its_splits(tmp_path):
    images = picture_table(tmp_path, 9)
    for name, first, end in (("train", 0, 6), ("validation", 6, 9)):
        save(tmp_path / "set" / name, images[first:end], first=first)
    (tmp_path / "set/dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    assert detect_kind(tmp_path / "set") == detect_kind(tmp_path / "set/train") == "arrow"
    sources = opened(tmp_path / "set", labels=("label",))
    assert {name: len(source) for name, source in sources.items()} == {"train": 6, "val": 3}
    pairs = [pair for source in sources.values() for pair in everything(source)]
    assert [pair.image for pair in pairs] == images
    assert [pair.captions for pair in pairs] == [(f"no {n}",) for n in range(9)]
    assert [pair.labels for pair in pairs] == [{"label": ["cat", "dog"][n % 2]} for n in range(9)]
    one = open_source(tmp_path / "set/train", SourceConfig(split="extra"))
    assert list(one) == ["extra"]
    assert list(one["extra"].names(0, 1)) == ["data-00000-of-00002.arrow row 1"]


def test_any_rows_in_any_order_and_pictures_only_when_asked(tmp_path):
    images = picture_table(tmp_path, 7)
    path = save(tmp_path / "set", images, files=1) / "data-00000-of-00001.arrow"
    rows = pickle.loads(pickle.dumps(ArrowRows(path)))
    for first in range(7):
        for end in range(first, 8):
            found = list(rows.read(first, end, ("image", "text")))
            assert [row["image"]["bytes"] for row in found] == images[first:end]
            bare = list(rows.read(first, end, ("text", "image"), pictures=False))
            assert bare == [{"text": f"no {n}", "image": {"path": "x.png"}} for n in range(first, min(end, 7))]
    assert len(pickle.dumps(rows)) < 2000 + 8 * 7


def test_a_row_without_a_picture_is_a_bad_sample(tmp_path):
    folder = save(tmp_path / "set", [None, *picture_table(tmp_path, 1)])
    bad, good = everything(opened(folder)["train"])
    assert (bad.reason, good.captions) == ("no picture", ("no 1",))
    rows = ArrowRows(folder / "data-00000-of-00002.arrow")
    assert list(rows.read(0, 1, ("image",), pictures=False)) == [{"image": None}]


def test_identity_changes_with_the_rows(tmp_path):
    images = picture_table(tmp_path, 4)
    one, two, other = (
        opened(save(tmp_path / name, data))["train"].identity()
        for name, data in (("a", images), ("b", images), ("c", images[::-1]))
    )
    assert one == two
    assert one != other


def test_damage_and_chosen_rows_are_named(tmp_path):
    images = picture_table(tmp_path, 4)
    folder = save(tmp_path / "set", images, files=1, batch=1)
    path = folder / "data-00000-of-00001.arrow"
    rows, data = ArrowRows(path), path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"00001\.arrow: not a readable Arrow stream"):
        opened(folder)
    found = list(rows.read(0, 4, ("text",)))
    assert [item.reason for item in found if isinstance(item, Bad)][-1] == "batch cannot be read"
    assert len(found) == 4
    path.write_bytes(data)
    state = json.loads((folder / "state.json").read_text())
    for change, words in (
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "flatten_indices"),
        ({"_data_files": [{"filename": "../x.arrow"}]}, "is no file of it"),
        ({"_data_files": 3}, "names no files"),
    ):
        (folder / "state.json").write_text(json.dumps({**state, **change}))
        with pytest.raises(DataError, match=words):
            opened(folder)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": []}))
    with pytest.raises(DataError, match="names no splits"):
        opened(tmp_path)
