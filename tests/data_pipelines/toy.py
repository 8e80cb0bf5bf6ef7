"""Small data sets for the tests of data_pipelines."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.scenes import make_scene
from data_pipelines.shards.manifest import Manifest
from data_pipelines.sources.drawn import ScenesSource


def picture(seed: int = 0, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> Image.Image:
    """Random pixels, width x height."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values, mode)


def file_bytes(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def scenes_folder(folder: Path, train: int = 50, test: int = 20, size: int = 16, per_shard: int = 8) -> Manifest:
    sources = {"train": ScenesSource("train", train, size), "test": ScenesSource("test", test, size)}
    return prepare(sources, folder, PrepareConfig(name="scenes", size=size, samples_per_shard=per_shard))


def jsonl_folder(folder: Path, count: int = 12, **extra: object) -> Path:
    """`count` good pictures of odd sizes; captions of 3 or 4 levels; labels `group` (word) and `number`."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for n in range(count):
        name = f"images/p {n}.png"
        (folder / name).write_bytes(file_bytes(picture(n, (10 + n, 14))))
        captions = [f"level {k} of picture {n}" for k in range(3 + n % 2)]
        lines.append({"file_name": name, "captions": captions, "group": "ab"[n % 2], "number": n, **extra})
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def foreign_members(first: int, count: int, size: int = 16) -> list[tuple[str, bytes]]:
    """Samples as other tools write them: captions and labels at the record's top level."""
    members = []
    for n in range(first, first + count):
        record = {"captions": [f"coarse {n % 3}", f"fine {n}"], "group": f"g{n % 4}", "year": 2000 + n}
        members.append((f"k{n}.jpg", file_bytes(picture(n, (size, size)), "JPEG")))
        members.append((f"k{n}.json", json.dumps(record).encode()))
        members.append((f"k{n}.txt", record["captions"][-1].encode()))
    return members


def vocabulary() -> CaptionTokenizer:
    texts = [f"level {k} of picture {n}" for k in range(4) for n in range(20)]
    texts += [text for n in range(50) for text in make_scene(0, n, "train").captions]
    return CaptionTokenizer.train(texts, None, 400)


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, by name."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != "run.lock"}
