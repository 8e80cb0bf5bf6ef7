"""Bytes of an image file -> RGB pixels. What cannot be read in full is refused, never guessed.

Documented choices: EXIF orientation is applied, alpha lies on white, 16-bit is scaled to 8, of an animation
the first frame counts, colour profiles are ignored.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 50_000_000  # refused from the header on, before pixels are allocated
_PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,  # Pillow's PNG reader
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class DecodeError(ValueError):
    """The bytes are not a whole image. `reason` is short and counts alike cases together."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in mode RGB, at its own size. Raises DecodeError."""
    if not data:
        raise DecodeError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # Pillow's remarks on odd EXIF
        try:
            image = Image.open(io.BytesIO(data))
            _refuse_bomb(image, max_pixels)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
        except DecodeError:
            raise
        except UnidentifiedImageError:
            raise DecodeError("not an image") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DecodeError("too many pixels") from None
        except _PILLOW_ERRORS as error:
            raise DecodeError("damaged image", f"{type(error).__name__}: {error}") from None


def square(image: Image.Image, size: int) -> Image.Image:
    """Short side to `size`, centre crop, anti-aliased (bicubic). A picture of that size is left as it is."""
    if image.size == (size, size):
        return image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def decode_pixels(data: bytes, size: int | None = None, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """(H, W, 3) uint8; with `size`, (size, size, 3). Raises DecodeError."""
    image = decode_image(data, max_pixels)
    return np.asarray(image if size is None else square(image, size))


def encode_image(image: Image.Image, form: Literal["png", "jpg"], quality: int = 95) -> bytes:
    """The bytes of an RGB picture; equal pixels give equal bytes with equal versions of Pillow."""
    stream = io.BytesIO()
    if form == "png":
        image.save(stream, "PNG")
    else:
        image.save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def is_plain(data: bytes, size: int) -> str | None:
    """ "png" or "jpg" when the bytes already are a whole RGB picture of that size, upright; else None."""
    image = Image.open(io.BytesIO(data))
    plain = image.size == (size, size) and image.mode == "RGB" and "transparency" not in image.info
    upright = image.getexif().get(0x0112, 1) == 1
    if not plain or not upright or getattr(image, "n_frames", 1) != 1:
        return None
    return {"PNG": "png", "JPEG": "jpg"}.get(image.format or "")


def _refuse_bomb(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError("too many pixels", f"{width} x {height}, limit {max_pixels}")
    if min(width, height) < 1:
        raise DecodeError("no pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert("RGB") would clip nearly everything to white
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DecodeError("unsupported depth", f"mode {image.mode}")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")
