"""Real sets, where SEQTOK_DATA names a folder of them: counts match, and re-sharding changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from data_pipelines.image_text import LoaderConfig, read_split
from data_pipelines.open_source import SourceConfig, open_source
from data_pipelines.prepare import PrepareConfig, prepare
from data_pipelines.records import Fields
from data_pipelines.verify import verify
from tests.data_samples import vocabulary

pytestmark = pytest.mark.slow
TOKENIZER = vocabulary()


def real(name: str) -> Path:
    folder = Path(os.environ.get("SEQTOK_DATA", "/nowhere")) / name
    if not folder.exists():
        pytest.skip(f"no {name}; set SEQTOK_DATA to a folder of data sets")
    return folder


@pytest.mark.parametrize("name", ["emoji", "flickr8k", "coco_mini", "fashion_products", "cifar10"])
def test_every_record_of_a_raw_folder_becomes_a_sample(tmp_path, name):
    raw = real(name) / "raw"
    lines = (raw / "captions.jsonl").read_text().splitlines()
    manifest = prepare(open_source(raw, SourceConfig()), tmp_path / "d", PrepareConfig(size=32))
    assert manifest.splits["train"].samples == len(lines)
    assert verify(tmp_path / "d").problems == []
    batch = read_split(tmp_path / "d", "train", TOKENIZER, config=LoaderConfig(max_tokens=200))
    assert [len(captions) for captions in batch.captions] == [len(json.loads(line)["captions"]) for line in lines]


@pytest.mark.parametrize("name", ["flickr8k", "coco_mini"])
def test_coco_captions_become_samples(tmp_path, name):
    path = real(name) / "raw/captions_coco.json"
    manifest = prepare(open_source(path, SourceConfig()), tmp_path / "d", PrepareConfig(size=32))
    assert manifest.splits["train"].samples == len(json.loads(path.read_text())["images"])
    assert manifest.levels >= 5


@pytest.mark.parametrize(("name", "label", "size"), [("emoji", "group", 64), ("cifar10", "label", 32)])
def test_tars_read_directly_and_re_sharded_are_the_same(tmp_path, name, label, size):
    folder = real(name)
    fields = Fields(labels=(label,))
    manifest = prepare(open_source(folder, SourceConfig(fields=fields)), tmp_path / "d", PrepareConfig(size=size))
    for split in manifest.splits:
        direct = read_split(folder, split, TOKENIZER, config=LoaderConfig(fields=fields, max_tokens=99))
        again = read_split(tmp_path / "d", split, TOKENIZER, config=LoaderConfig(max_tokens=99))
        assert torch.equal(direct.images, again.images)
        assert torch.equal(direct.labels[label], again.labels[label])
        assert direct.captions == again.captions
        assert torch.equal(direct.caption_ids, again.caption_ids)
        assert torch.equal(direct.text_ids, again.text_ids[:, : direct.text_ids.shape[1]])
