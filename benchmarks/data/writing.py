"""Images per second of writing shards: 512 -> 256 px JPEG of quality 95, with captions, index and hashes.

The limit is libjpeg's: the same decoder and encoder with the same settings on the same files, one core, nothing else;
decoding goes into one buffer. `prepare` does the whole work, from a folder and from tars: reading, sha256 of every
source file, captions, JSON, tar, hash of the shard, index, fsync and rename. The peer does what most scripts do:
Pillow, bicubic, webdataset's TarWriter. They take turns, shard by shard, and of each the median turn counts; shares
are medians of the turns' own ratios, so that another load on the machine moves both sides. Two processes are compared
with one on a data set of many shards, with and without the seconds that starting them takes; how much the codec alone
gains from a second process says what the two cores allow.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.data.photographs import photographs
from data_pipelines.pictures import jpeg
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.base import Source
from data_pipelines.sources.file_sources import folder_source
from data_pipelines.sources.records import Fields
from data_pipelines.sources.tar_source import tar_sources
from seqtok_core.foundation.compat import import_webdataset

SIZE = 256
DISTINCT = 200  # different pictures; more are these again under other names
PER_SHARD = 1000  # the default of `data prepare`
CAPTIONS = ["a photograph", "a photograph of four places", "a photograph of four places, put together from parts"]


def measure(folder: Path | None, count: int) -> dict[str, Any]:
    """`count` pictures are written per way. The result is JSON."""
    files, made_of = photographs(folder, min(DISTINCT, count))
    with tempfile.TemporaryDirectory(prefix="data_writing-") as name:
        place = Path(name)
        per_shard = min(PER_SHARD, count // 2)
        pictures = _write_folder(place / "folder", files, per_shard)
        tars = _write_tars(place / "tars", files, per_shard)
        rows = _turns(place, files, pictures, tars, per_shard, turns=5)
        two = _two_processes(place, files, per_shard, shards=2 * max(1, count // per_shard // 2))
    return {
        "pictures": {"what": made_of, "mean_bytes": round(statistics.mean(map(len, files))), "distinct": len(files)},
        "settings": {"size": SIZE, "quality": 95, "subsampling": "444", "samples_per_shard": per_shard},
        "rows": rows,
        "two_processes": two,
    }


def _turns(
    place: Path, files: list[bytes], folder: Source, tars: Source, per_shard: int, turns: int
) -> list[dict[str, Any]]:
    some = [files[n % len(files)] for n in range(per_shard)]
    ways: dict[str, Callable[[], None]] = {
        "limit: decode and encode only": lambda: _codec_only(some),
        "prepare, from a folder": lambda: _prepare(folder, place / "out", 1),
        "prepare, from tars": lambda: _prepare(tars, place / "out", 1),
        "prepare, from a folder, resize exact": lambda: _prepare(folder, place / "out", 1, resize="exact"),
        "peer: Pillow, bicubic, TarWriter": lambda: _plain(some, place / "plain.tar"),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns + 1):  # the first turn warms up
        for name, way in ways.items():
            taken[name].append(_seconds(way))
    limit, peer = (taken[name][1:] for name in (next(iter(ways)), list(ways)[-1]))
    return [
        {
            "way": name,
            "images_per_second": round(per_shard / statistics.median(seconds[1:]), 1),
            "share_of_limit": _ratio(limit, seconds[1:]),
            "times_the_peer": _ratio(peer, seconds[1:]),
        }
        for name, seconds in taken.items()
    ]


def _two_processes(place: Path, files: list[bytes], per_shard: int, shards: int) -> dict[str, float]:
    source = _write_folder(place / "many", files, per_shard * shards)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for processes in seconds:
            run = partial(_prepare, source, place / "out", processes, samples_per_shard=per_shard)
            seconds[processes].append(_seconds(run))
    start = _start_seconds(place, files)
    speeds = {n: round(len(source) / statistics.median(times), 1) for n, times in seconds.items()}
    return {
        "images": len(source),
        "one": speeds[1],
        "two": speeds[2],
        "ratio": _ratio(seconds[1], [taken - start for taken in seconds[2]]),
        "ratio_with_start": _ratio(seconds[1], seconds[2]),
        "start_seconds": round(start, 2),
        "ratio_of_codec_alone": _codec_in_two(files),
    }


def _codec_in_two(files: list[bytes]) -> float:
    """Speed of two processes that only decode and encode, over that of one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as one, ProcessPoolExecutor(1, context) as other:
        pair = (one, other)
        wait([pool.submit(_codec_only, files[:2]) for pool in pair])  # started and warm
        alone, both = [], []
        for _ in range(5):
            alone.append(_seconds(lambda: wait([one.submit(_codec_only, files)])))
            both.append(_seconds(lambda: wait([pool.submit(_codec_only, files) for pool in pair])))
    return round(2 * statistics.median(a / b for a, b in zip(alone, both, strict=True)), 3)


def _start_seconds(place: Path, files: list[bytes]) -> float:
    """What two processes cost before the first picture: two shards of one picture each."""
    source = _write_folder(place / "two", files, 2)
    return statistics.median(
        _seconds(lambda: _prepare(source, place / "out", 2, samples_per_shard=1)) for _ in range(3)
    )


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _codec_only(files: Sequence[bytes]) -> None:
    buffer = np.empty((SIZE, SIZE, 3), np.uint8)
    for data in files:
        jpeg.simplejpeg.decode_jpeg(
            data, "RGB", fastdct=False, fastupsample=False, min_height=SIZE, min_width=SIZE, buffer=buffer
        )
        Image.fromarray(buffer).save(io.BytesIO(), "JPEG", quality=95, subsampling="4:4:4")


def _prepare(source: Source, out: Path, processes: int, **settings: Any) -> None:
    values = {"name": "data", "size": SIZE, "form": "jpg", "processes": processes, "samples_per_shard": 10**6}
    prepare({"train": source}, out, PrepareConfig(**values | settings), overwrite=True)


def _plain(files: Sequence[bytes], out: Path) -> None:
    with open(out, "wb") as stream, import_webdataset().TarWriter(stream, encoder=False, mtime=0) as tar:
        for number, data in enumerate(files):
            image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            blob = io.BytesIO()
            image.save(blob, "JPEG", quality=95, subsampling="4:4:4")
            record = json.dumps({"captions": CAPTIONS}).encode()
            tar.write(
                {"__key__": f"{number:08d}", "jpg": blob.getvalue(), "json": record, "txt": CAPTIONS[-1].encode()}
            )


def _write_folder(place: Path, files: list[bytes], count: int) -> Source:
    place.mkdir()
    with open(place / "captions.jsonl", "w") as lines:
        for number in range(count):
            name = f"{number:06d}.jpg"
            (place / name).write_bytes(files[number % len(files)])
            lines.write(json.dumps({"file_name": name, "captions": CAPTIONS}) + "\n")
    return folder_source(place, Fields())


def _write_tars(place: Path, files: list[bytes], count: int) -> Source:
    place.mkdir()
    with open(place / "train-0.tar", "wb") as stream, import_webdataset().TarWriter(stream, encoder=False) as tar:
        for number in range(count):
            record = json.dumps({"captions": CAPTIONS}).encode()
            tar.write({"__key__": f"{number:06d}", "jpg": files[number % len(files)], "json": record})
    return tar_sources(place, Fields())["train"]
