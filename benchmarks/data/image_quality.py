"""Ways to bring a JPEG to the wanted size: quality against an anti-aliased reference, and time.

    python -m benchmarks.data.image_quality [--photographs FOLDER ...] [--count 40] [--out FILE.json]

The reference is the fully decoded picture through Pillow's Lanczos filter in float, and the same with the bicubic one:
two good filters, whose distance from each other is a row of its own. PSNR in dB over all pixels of a picture, mean
and worst of a set. Time is processor time of one core per picture, decoding included. A way that OpenCV offers is
measured where OpenCV is installed; nothing else needs it. The second table compares encoders at quality 95.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data.photographs import encode_source, photographs, real_pictures
from benchmarks.machine import describe_command, describe_machine
from data_pipelines.pictures import jpeg
from data_pipelines.pictures.decode import decode_pixels
from data_pipelines.pictures.resize import square

Pixels = NDArray[np.uint8]
Way = Callable[[bytes, int], Pixels]
FILTERS = {name: Image.Resampling[name.upper()] for name in ("lanczos", "bicubic", "hamming", "box")}
WARM = 2  # passes over a set; the quicker one counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, nargs="*", default=[], help="folders; the first gives the mosaics")
    parser.add_argument("--count", type=int, default=40, help="pictures per set")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    large, made_of = photographs(args.photographs[0] if args.photographs else None, args.count)
    rows = []
    for size in (64, 96, 120, 128, 192, 224, 256, 384):
        rows += compare(f"512 -> {size}", large, size)
    for folder in args.photographs:
        name = "/".join(folder.parts[-2:])
        for size in (64, 96, 128):
            rows += compare(f"{name} -> {size}", [d for d, _ in real_pictures(folder, size)][: args.count], size)
        squares = [encode_source(pixels) for _, pixels in islice(real_pictures(folder, 256), args.count)]
        for size in (64, 128):  # reduced scales land on these; squares, so that no crop falls between two pixels
            rows += compare(f"{name}, squares of 256 -> {size}", squares, size) if squares else []
    encoders = compare_encoders([decode_pixels(data, 256, resize="exact") for data in large])
    if args.out:
        result: dict[str, Any] = {"command": describe_command("image_quality"), "pictures": made_of}
        result |= {"machine": describe_machine(), "rows": rows, "encoders": encoders}
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def ways() -> dict[str, Way]:
    found: dict[str, Way] = {
        "ours, resize fast": lambda data, size: decode_pixels(data, size),
        "ours, resize exact": lambda data, size: decode_pixels(data, size, resize="exact"),
    }
    found |= {f"whole, {name}": _whole(name) for name in FILTERS}
    found["whole with fastdct and fastupsample, bicubic"] = _whole("bicubic", fast=True)
    found["whole, bicubic with reducing_gap 1"] = _whole("bicubic", gap=1.0)
    found["whole, bicubic with reducing_gap 2"] = _whole("bicubic", gap=2.0)
    for oversampling in (1.0, 1.5, 2.0):
        found[f"any DCT scale >= {oversampling:g} x, bicubic"] = _scaled(oversampling)
    found["Pillow draft, bicubic"] = _draft
    found["whole, ADM's box halvings, then bicubic"] = _adm
    if importlib.util.find_spec("cv2"):
        found["whole, OpenCV area"] = _opencv
    return found


def compare(title: str, files: list[bytes], size: int) -> list[dict[str, Any]]:
    references = [[_reference(data, size, name) for data in files] for name in ("lanczos", "bicubic")]
    rows = []
    for name, way in ways().items():
        seconds, made = _timed(way, files, size)
        row: dict[str, Any] = {"set": title, "pictures": len(files), "way": name}
        for kind, wanted in zip(("lanczos", "bicubic"), references, strict=True):
            scores = [psnr(a, b) for a, b in zip(made, wanted, strict=True)]
            row |= {f"psnr_{kind}": round(float(np.mean(scores)), 2), f"worst_{kind}": round(min(scores), 2)}
        rows.append(row | {"ms": round(1e3 * seconds, 3)})
        print(
            " ".join(f"{value!s:>8}" if key != "way" else f"{value:46}" for key, value in rows[-1].items()), flush=True
        )
    return rows


def compare_encoders(pictures: list[Pixels]) -> list[dict[str, Any]]:
    rows = []
    for subsampling in ("444", "422", "420"):
        for name in ("simplejpeg", "simplejpeg, fastdct", "Pillow (ours)", "Pillow, optimize"):
            start = time.process_time()
            files = [_encode(name, pixels, subsampling) for pixels in pictures]
            seconds = (time.process_time() - start) / len(pictures)
            scores = [psnr(decode_pixels(f), p.astype(float)) for f, p in zip(files, pictures, strict=True)]
            row: dict[str, Any] = {
                "encoder": name,
                "subsampling": subsampling,
                "bytes": round(float(np.mean([len(f) for f in files]))),
            }
            rows.append(row | {"psnr": round(float(np.mean(scores)), 2), "ms": round(1e3 * seconds, 3)})
            print(rows[-1], flush=True)
    return rows


def psnr(made: Pixels, wanted: NDArray[np.floating]) -> float:
    error = float(np.mean((made.astype(np.float64) - wanted) ** 2))
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def _timed(way: Way, files: list[bytes], size: int) -> tuple[float, list[Pixels]]:
    seconds = []
    for _ in range(WARM):
        start = time.process_time()
        made = [way(data, size) for data in files]
        seconds.append((time.process_time() - start) / len(files))
    return min(seconds), made


def _reference(data: bytes, size: int, name: str) -> NDArray[np.float32]:
    pixels = decode_pixels(data).astype(np.float32)
    box = _middle(pixels.shape[0], pixels.shape[1])
    planes = [Image.fromarray(pixels[..., channel]) for channel in range(3)]
    return np.stack([np.asarray(plane.resize((size, size), FILTERS[name], box=box)) for plane in planes], -1)


def _middle(height: int, width: int) -> tuple[float, float, float, float]:
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _resized(pixels: Pixels, size: int, name: str, gap: float | None = None) -> Pixels:
    box = _middle(*pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((size, size), FILTERS[name], box=box, reducing_gap=gap))


def _whole(name: str, fast: bool = False, gap: float | None = None) -> Way:
    def way(data: bytes, size: int) -> Pixels:
        return _resized(jpeg.simplejpeg.decode_jpeg(data, fastdct=fast, fastupsample=fast), size, name, gap)

    return way


def _scaled(oversampling: float) -> Way:
    def way(data: bytes, size: int) -> Pixels:
        least = int(np.ceil(oversampling * size))
        return square(jpeg.simplejpeg.decode_jpeg(data, fastdct=False, min_height=least, min_width=least), size)

    return way


def _draft(data: bytes, size: int) -> Pixels:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (size, size))
    return square(np.asarray(image.convert("RGB")), size)


def _adm(data: bytes, size: int) -> Pixels:
    """center_crop_arr of guided-diffusion, which DiT and MAR use too."""
    image = Image.fromarray(decode_pixels(data))
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), FILTERS["box"])
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), FILTERS["bicubic"])
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def _opencv(data: bytes, size: int) -> Pixels:
    import cv2

    cv2.setNumThreads(1)
    pixels = decode_pixels(data)
    left, top, right, bottom = (round(value) for value in _middle(*pixels.shape[:2]))
    return cv2.resize(pixels[top:bottom, left:right], (size, size), interpolation=cv2.INTER_AREA)


def _encode(name: str, pixels: Pixels, subsampling: str) -> bytes:
    if name.startswith("simplejpeg"):
        fast = name.endswith("fastdct")
        return jpeg.simplejpeg.encode_jpeg(pixels, quality=95, colorsubsampling=subsampling, fastdct=fast)
    stream = io.BytesIO()
    chroma = ":".join(subsampling)
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=chroma, optimize=name.endswith("optimize"))
    return stream.getvalue()


if __name__ == "__main__":
    main()
