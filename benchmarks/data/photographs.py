"""Sources of the image benchmarks: JPEG of 512 x 512 pixels, quality 92, 4:2:0, about 96 kB.

Photographs where a folder of them is named: mosaics of 2 x 2 squares of 256 pixels cut from real photographs (so the
content of each quarter is a photograph's, not enlarged). Else generated pictures: noise of all scales with a
photograph's spectrum under shaded shapes with sharp edges.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.pictures.resize import square

SIDE, QUALITY = 512, 92


def photographs(folder: Path | None, count: int, seed: int = 0) -> tuple[list[bytes], str]:
    """`count` different JPEG files, and the sentence that says what they are."""
    rng = np.random.default_rng(seed)
    if folder is None:
        made = [encode_source(_generated(rng)) for _ in range(count)]
        return made, f"generated pictures {SIDE} x {SIDE} (noise of all scales and shapes), no photographs"
    quarters = [pixels for _, pixels in real_pictures(folder, SIDE // 2)]
    made = [
        encode_source(_mosaic([quarters[n] for n in rng.choice(len(quarters), 4, replace=False)])) for _ in range(count)
    ]
    place, side = "/".join(folder.parts[-2:]), SIDE // 2
    return made, f"2 x 2 mosaics of {len(quarters)} photographs cut to {side} x {side}, from {place}"


def real_pictures(folder: Path, size: int) -> Iterator[tuple[bytes, NDArray[np.uint8]]]:
    """(file, pixels (size, size, 3)) of the pictures in a folder whose short side has at least `size` pixels."""
    for path in sorted(folder.rglob("*.jpg")):
        data = path.read_bytes()
        try:
            pixels = decode_pixels(data)
        except DecodeError:
            continue
        if min(pixels.shape[:2]) >= size:
            yield data, square(pixels, size)


def _mosaic(quarters: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate([np.concatenate(quarters[:2], 1), np.concatenate(quarters[2:], 1)], 0)


def _generated(rng: np.random.Generator) -> NDArray[np.uint8]:
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = 1.0
    light = _noise(rng, frequency, 1.4)
    tint = np.stack([_noise(rng, frequency, 1.6) for _ in range(3)], -1)
    picture = 128 + 42 * light[..., None] + 14 * tint
    y, x = np.mgrid[:SIDE, :SIDE]
    for _ in range(24):
        (cy, cx), radius, angle = rng.uniform(0, SIDE, 2), rng.uniform(8, 90), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        inside = np.hypot(u, 2 * v) < radius if rng.random() < 0.5 else np.maximum(abs(u), 2 * abs(v)) < radius
        picture[inside] += rng.uniform(-60, 60, 3) + 0.4 * (u / radius)[inside, None] * rng.uniform(-60, 60)
    picture += rng.normal(0, 1.0, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, frequency: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """(SIDE, SIDE), zero mean, unit variance, amplitude falling with frequency ** power."""
    phase = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    spectrum = phase / frequency**power
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    return field / field.std()


def encode_source(pixels: NDArray[np.uint8]) -> bytes:
    """As cameras and web sites do: quality 92, 4:2:0."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return stream.getvalue()
