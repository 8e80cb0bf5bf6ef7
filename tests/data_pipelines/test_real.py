"""Real sets, where SEQTOK_DATA names a folder of them: every form of each set imports; counts, pictures and captions
are those of the source, read here with nothing but the standard library, pyarrow and Pillow."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
import tarfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageCms

from data_pipelines.looking.verify import verify_folder
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.shards.manifest import Manifest
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.sources.records import Fields
from tests.data_pipelines.toy import vocabulary

pytestmark = pytest.mark.slow
TOKENIZER = vocabulary()
SIZES = {"emoji": 64, "flickr8k": 96, "coco_mini": 96, "fashion_products": 64, "cifar10": 32}


def real(name: str) -> Path:
    folder = Path(os.environ.get("SEQTOK_DATA", "/nowhere")) / name
    if not folder.exists():
        pytest.skip(f"no {name}; set SEQTOK_DATA to a folder of data sets")
    return folder


@dataclass(frozen=True)
class Expected:
    """A sample as its source has it."""

    image: bytes
    captions: list[str]


def cleaned(captions: list[str]) -> list[str]:
    """The stated rule, written down once more."""
    texts = []
    for text in captions:
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
        texts.append(" ".join(unicodedata.normalize("NFC", text).split())[:1000].rstrip())
    return [text for text, _ in itertools.groupby(text for text in texts if text)]


def from_jsonl(raw: Path) -> Iterator[Expected]:
    for line in (raw / "captions.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        yield Expected((raw / record["file_name"]).read_bytes(), record["captions"])


def from_coco(path: Path) -> Iterator[Expected]:
    content = json.loads(path.read_text(encoding="utf-8"))
    for image in content["images"]:
        notes = [note["caption"] for note in content["annotations"] if note["image_id"] == image["id"]]
        notes = sorted((note.strip() for note in notes), key=lambda text: len(text.split()))
        yield Expected((path.parent / "images" / image["file_name"]).read_bytes(), notes)


def from_tars(folder: Path, split: str) -> Iterator[Expected]:
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            members: dict[str, bytes] = {}
            for info in tar:
                stem, _, ending = info.name.partition(".")
                members[ending] = tar.extractfile(info).read()
                if len(members) == 3:
                    image = next(data for ending, data in members.items() if ending in ("png", "jpg"))
                    yield Expected(image, json.loads(members["json"])["captions"])
                    members = {}
            assert not members, stem


def from_table(folder: Path) -> Iterator[Expected]:
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=["image", "captions"]):
            for row in batch.to_pylist():
                yield Expected(row["image"], row["captions"])


def written(folder: Path, manifest: Manifest, split: str) -> Iterator[tuple[bytes, dict]]:
    """(picture, record) of every sample in order."""
    for info in manifest.splits[split].shards:
        with tarfile.open(folder / info.file) as tar:
            members = [(member.name.partition("."), tar.extractfile(member).read()) for member in tar]
        for _, group in itertools.groupby(members, key=lambda item: item[0][0]):
            by_ending = {name[2]: data for name, data in group}
            assert by_ending.keys() in ({"png", "json", "txt"}, {"jpg", "json", "txt"})
            yield (
                next(data for ending, data in by_ending.items() if ending in ("png", "jpg")),
                json.loads(by_ending["json"]),
            )


def compare(folder: Path, manifest: Manifest, split: str, expected: Iterator[Expected], size: int) -> tuple[int, int]:
    """(samples, pictures kept byte for byte). Every sample of the source, in its order, nothing else."""
    count = kept = 0
    for (image, record), source in itertools.zip_longest(written(folder, manifest, split), expected):
        assert record["captions"] == cleaned(source.captions)
        assert record["sha256"] == hashlib.sha256(source.image).hexdigest()
        with Image.open(io.BytesIO(source.image)) as original:
            whole = original.size == (size, size) and original.mode == "RGB"
        assert Image.open(io.BytesIO(image)).size == (size, size)
        if whole:
            assert image == source.image
            kept += 1
        count += 1
    assert manifest.splits[split].samples == count
    assert manifest.splits[split].dropped == {}
    assert manifest.splits[split].notes.get("pictures kept byte for byte", 0) == kept
    print(f"{split}: {count} samples, {kept} pictures byte for byte")
    return count, kept


def imported(path: Path, out: Path, size: int, fields: Fields | None = None, **config: object) -> Manifest:
    """In the source's own order, in which it is compared."""
    own = PrepareConfig(size=size, shuffle="off")
    manifest = prepare(open_source(path, SourceConfig(fields=fields or Fields(), **config)), out, own)
    assert verify_folder(out).problems == []
    return manifest


@pytest.mark.parametrize("name", sorted(SIZES))
def test_raw_folders(tmp_path, name):
    raw = real(name) / "raw"
    manifest = imported(raw, tmp_path / "d", SIZES[name])
    count, _ = compare(tmp_path / "d", manifest, "train", from_jsonl(raw), SIZES[name])
    assert count == {"emoji": 300, "flickr8k": 240, "coco_mini": 100, "fashion_products": 120, "cifar10": 300}[name]


@pytest.mark.parametrize(("name", "count"), [("flickr8k", 240), ("coco_mini", 100)])
def test_coco_files(tmp_path, name, count):
    path = real(name) / "raw/captions_coco.json"
    manifest = imported(path, tmp_path / "d", SIZES[name])
    assert compare(tmp_path / "d", manifest, "train", from_coco(path), SIZES[name])[0] == count
    assert "shortest first" in manifest.levels_made["order"]


@pytest.mark.parametrize("name", sorted(SIZES))
def test_tars_of_every_split(tmp_path, name):
    folder = real(name)
    manifest = imported(folder, tmp_path / "d", SIZES[name])
    assert sorted(manifest.splits) == ["test", "train", "val"]
    for split in manifest.splits:
        count, kept = compare(tmp_path / "d", manifest, split, from_tars(folder, split), SIZES[name])
        assert kept == count, "they have their size already"


def test_the_parquet_table(tmp_path):
    table = real("cifar10") / "table"
    manifest = imported(table, tmp_path / "d", 32, Fields(labels=("label", "coarse")))
    assert compare(tmp_path / "d", manifest, "train", from_table(table), 32) == (49290, 49290)
    assert len(manifest.classes["label"]) == 10
    assert manifest.classes["coarse"] == ("animal", "vehicle")


def test_class_folders_of_cifar10(tmp_path):
    folder = real("cifar10") / "raw/images"
    manifest = imported(folder, tmp_path / "d", 32, Fields(captions=("{label}", "a photo of a {label}")))
    files = sorted(folder.glob("*/*.jpg"))
    expected = (Expected(f.read_bytes(), [f.parent.name, f"a photo of a {f.parent.name}"]) for f in files)
    assert compare(tmp_path / "d", manifest, "train", expected, 32) == (300, 300)
    assert manifest.classes["label"] == tuple(sorted(entry.name for entry in folder.iterdir()))


def test_the_csv_of_the_products(tmp_path):
    """Names of pictures are made from a column, levels from four."""
    path = real("fashion_products") / "raw/styles.csv"
    levels = ("masterCategory", "subCategory", "articleType", "productDisplayName")
    fields = Fields(image="images/{id}.jpg", key="id", captions=levels, labels=("season", "gender"))
    manifest = imported(path, tmp_path / "d", 64, fields)
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = [
        Expected((path.parent / f"images/{row['id']}.jpg").read_bytes(), [row[level] for level in levels])
        for row in rows
    ]
    assert compare(tmp_path / "d", manifest, "train", iter(expected), 64)[0] == 120
    assert manifest.level_names == levels
    assert manifest.labels == ("gender", "season")


def test_chosen_vendors_of_the_emoji(tmp_path):
    folder = real("emoji")
    manifest = imported(folder, tmp_path / "d", 64, where=("vendor=noto,blobmoji,fluent",))
    assert {split: info.samples for split, info in manifest.splits.items()} == {
        "train": 316 + 1142 + 1147,
        "val": 43 + 183 + 177,
        "test": 33 + 157 + 159,
    }


@pytest.mark.parametrize(("name", "label", "size"), [("emoji", "group", 64), ("cifar10", "label", 32)])
def test_tars_read_directly_and_re_sharded_are_the_same(tmp_path, name, label, size):
    folder = real(name)
    fields = Fields(labels=(label,))
    own = PrepareConfig(size=size, shuffle="off")
    manifest = prepare(open_source(folder, SourceConfig(fields=fields)), tmp_path / "d", own)
    for split in manifest.splits:
        direct = read_split(folder, split, TOKENIZER, config=LoaderConfig(fields=fields, max_tokens=99))
        again = read_split(tmp_path / "d", split, TOKENIZER, config=LoaderConfig(max_tokens=99))
        assert torch.equal(direct.images, again.images)
        assert torch.equal(direct.labels[label], again.labels[label])
        assert direct.captions == again.captions
        assert torch.equal(direct.caption_ids, again.caption_ids)
        assert torch.equal(direct.text_ids, again.text_ids[:, : direct.text_ids.shape[1]])


def in_srgb(picture: Image.Image) -> Image.Image:
    """As LittleCMS converts it, where it names other colours."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(picture, own, ImageCms.createProfile("sRGB"))
    assert converted is not None
    return converted


@pytest.mark.parametrize("name", ["emoji", "fashion_products"])
def test_pictures_that_were_resized_are_still_the_same_pictures(tmp_path, name):
    """Against Pillow's own antialiased reduction of the whole picture, in the colours that it shows."""
    raw, size = real(name) / "raw", 32
    manifest = imported(raw, tmp_path / "d", size)
    for (image, _), source in zip(written(tmp_path / "d", manifest, "train"), from_jsonl(raw), strict=True):
        original = in_srgb(Image.open(io.BytesIO(source.image))).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", original.size, "white"), original).convert("RGB")
        side = min(flat.size)
        left, top = (flat.width - side) / 2, (flat.height - side) / 2
        reference = flat.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        difference = np.asarray(reference, dtype=float) - np.asarray(Image.open(io.BytesIO(image)), dtype=float)
        assert np.sqrt((difference**2).mean()) < 3
