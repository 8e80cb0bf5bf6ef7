"""Images per second of reading 256 px JPEG of quality 95 from tars, with 0, 1 and 2 workers; memory of long epochs.

Ours gives what training takes: uint8 pictures, caption pyramids as token ids, labels, keys, in a global order. The
peer is the usual webdataset pipeline (Pillow, torchvision's Resize, RandomCrop, RandomHorizontalFlip, ToTensor,
batches of float pictures) and reads no captions; a leaner one gives uint8 pictures as they are. The limit is
libjpeg-turbo alone, on one core, into one buffer. Everything reads the same tars. The ways take turns, the first batch
is not counted (starting workers takes about a second and is not what is compared), and of each way the median turn
counts; ratios are medians of the turns' own ratios.

    python -m benchmarks.data.speed --only read [--photographs FOLDER] [--count 2000] [--out benchmarks/results]
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.data.photographs import photographs
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.pictures.augment import AugmentConfig
from data_pipelines.pictures.decode import decode_pixels, encode_image
from data_pipelines.reading.image_text import ImageTextLoader
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.shards.files import commit_shard, json_member
from data_pipelines.shards.manifest import Manifest, SplitInfo, write_manifest
from seqtok_core.foundation.compat import import_webdataset, prepare_torchvision

SIZE, BATCH, SHARDS, TURNS = 256, 64, 4, 5
DISTINCT = 250  # different pictures; more are these again under other names
CAPTIONS = ["a photograph", "a photograph of four places", "a photograph of four places, put together from parts"]
Batches = Callable[[], Iterator[torch.Tensor]]


def measure(folder: Path | None, count: int, long_epoch: int = 100_000) -> dict[str, Any]:
    """`count` pictures are read per way and turn. The result is JSON."""
    torch.set_num_threads(1)
    sources, made_of = photographs(folder, min(DISTINCT, count))
    files = [encode_image(decode_pixels(data, SIZE), "jpg", 95) for data in sources]
    captions = CaptionTokenizer.train(CAPTIONS, None, 300)
    with tempfile.TemporaryDirectory(prefix="data_reading-") as name:
        place = Path(name)
        write_data(place / "photographs", files, max(count, 2 * BATCH * SHARDS), SHARDS, SIZE)
        rows = _turns(place / "photographs", files, captions, count)
        memory = _memory(place, captions, (1000, long_epoch))
    return {
        "pictures": {"what": made_of, "mean_bytes": round(statistics.mean(map(len, files))), "distinct": len(files)},
        "settings": {"size": SIZE, "quality": 95, "subsampling": "444", "batch": BATCH, "shards": SHARDS},
        "rows": rows,
        "memory": memory,
    }


def _turns(folder: Path, files: list[bytes], captions: CaptionTokenizer, count: int) -> list[dict[str, Any]]:
    flips = AugmentConfig(crop="shift", padding=16, flip=0.5)
    ways: dict[str, tuple[str, Batches]] = {
        "limit: libjpeg into one buffer, one core": ("", lambda: _codec_only(files)),
    }
    for workers in (0, 1, 2):
        # Bound now: a lambda would see the loop's last number.
        ways[f"ours, {workers} workers"] = (f"peer, {workers} workers", _ours(folder, captions, workers))
        ways[f"peer, {workers} workers"] = (f"peer, {workers} workers", _peer(folder, workers, floats=True))
    ways["ours, 2 workers, shifted and mirrored"] = ("peer, 2 workers", _ours(folder, captions, 2, augment=flips))
    ways["webdataset, Pillow to uint8, 2 workers"] = ("peer, 2 workers", _peer(folder, 2, floats=False))
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):  # the first turn warms up
        for name, (_, batches) in ways.items():
            speed = _speed(batches(), count if turn else min(count, 4 * BATCH))
            speeds[name] += [speed] if turn else []
    rows = []
    for name, (peer, _) in ways.items():
        row: dict[str, Any] = {"way": name, "images_per_second": round(statistics.median(speeds[name]), 1)}
        if peer:
            ratios = [one / other for one, other in zip(speeds[name], speeds[peer], strict=True)]
            row["times_the_peer"] = round(statistics.median(ratios), 2)
        rows.append(row)
    return rows


def _speed(batches: Iterator[torch.Tensor], count: int) -> float:
    """Images per second after the first batch; every batch is touched."""
    next(batches)
    seen, checked, start = 0, 0, time.perf_counter()
    while seen < count:
        images = next(batches)
        checked += int(images[0, 0, 0, 0] >= 0)
        seen += len(images)
    taken = time.perf_counter() - start
    with contextlib.suppress(AttributeError):
        batches.close()  # type: ignore[attr-defined]
    return seen / taken


def _ours(folder: Path, captions: CaptionTokenizer, workers: int, **settings: Any) -> Batches:
    def batches() -> Iterator[torch.Tensor]:
        config = LoaderConfig(num_workers=workers, cache=False, **settings)
        loader = ImageTextLoader(folder, "train", captions, config, seed=0, global_batch=BATCH)
        return (batch.images for batch in loader.iterate())

    return batches


def _peer(folder: Path, workers: int, floats: bool) -> Batches:
    def batches() -> Iterator[torch.Tensor]:
        webdataset = import_webdataset()
        webdataset.utils.enforce_security = False  # its secure mode opens no local file
        chain = _float_chain() if floats else _to_uint8
        urls = [str(path) for path in sorted(folder.glob("*.tar"))]
        data = webdataset.WebDataset(urls, shardshuffle=False, workersplitter=webdataset.split_by_worker)
        data = data.repeat().to_tuple("jpg").map_tuple(_PillowThen(chain)).batched(BATCH)
        loader = DataLoader(data, batch_size=None, num_workers=workers)
        return (batch[0] for batch in loader)

    return batches


class _PillowThen:
    def __init__(self, chain: Callable[[Image.Image], torch.Tensor]) -> None:
        self._chain = chain

    def __call__(self, data: bytes) -> torch.Tensor:
        return self._chain(Image.open(io.BytesIO(data)).convert("RGB"))


def _float_chain() -> Callable[[Image.Image], torch.Tensor]:
    prepare_torchvision()
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(SIZE),
            transforms.RandomCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )


def _to_uint8(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def _codec_only(files: list[bytes]) -> Iterator[torch.Tensor]:
    pixels = torch.empty(BATCH, SIZE, SIZE, 3, dtype=torch.uint8)
    rows, number = pixels.numpy(), 0
    while True:
        for row in rows:
            simplejpeg.decode_jpeg(files[number % len(files)], "RGB", buffer=row)
            number += 1
        yield pixels


def write_data(folder: Path, files: list[bytes], count: int, shards: int, size: int) -> None:
    """A data set of ours whose pictures are these files, again and again."""
    per_shard, infos = -(-count // shards), []
    for number in range(shards):
        some = range(number * per_shard, min((number + 1) * per_shard, count))
        samples = ((f"train-{n:08d}", _members(files[n % len(files)], n)) for n in some)
        infos.append(commit_shard(folder, f"data-train-{number:06d}.tar", samples, task=str(number), facts={}))
    split = SplitInfo(samples=count, shards=tuple(infos))
    manifest = Manifest(
        kind="images", name="data", image_size=size, levels=3, labels=("number",), splits={"train": split}
    )
    write_manifest(folder, manifest)


def _members(picture: bytes, number: int) -> dict[str, bytes]:
    record = {"captions": [f"{CAPTIONS[0]}", CAPTIONS[1], f"{CAPTIONS[2]} {number}"], "labels": {"number": number}}
    return {"jpg": picture, "json": json_member(record), "txt": record["captions"][-1].encode()}  # type: ignore[index]


def _memory(place: Path, captions: CaptionTokenizer, epochs: tuple[int, ...]) -> dict[str, Any]:
    """Peak resident memory of a fresh process that reads one whole epoch of small pictures, 1000 per shard."""
    picture = encode_image(np.full((16, 16, 3), 128, dtype=np.uint8), "jpg", 95)
    rows = []
    for count in epochs:
        write_data(place / f"epoch-{count}", [picture], count, max(1, count // 1000), 16)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            found = fresh.submit(_read_epoch, place / f"epoch-{count}", captions).result()
        rows.append({"images": count, **found})
    return {"what": "16 px pictures, 1000 per shard, no cache, one process, one epoch", "rows": rows}


def _read_epoch(folder: Path, captions: CaptionTokenizer) -> dict[str, float]:
    torch.set_num_threads(1)
    start = time.perf_counter()
    config = LoaderConfig(cache=False)
    loader = ImageTextLoader(folder, "train", captions, config, seed=0, global_batch=100)
    opened = time.perf_counter() - start
    for _ in zip(range(loader.steps_per_epoch), loader.iterate(), strict=False):
        pass
    taken = time.perf_counter() - start
    return {"peak_mib": round(_peak_mib(), 1), "seconds_to_open": round(opened, 3), "seconds": round(taken, 1)}


def _peak_mib() -> float:
    """Not getrusage's ru_maxrss: a process that was forked and then executed inherits its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
