"""JPEG: header, strict decoding at a reduced scale by libjpeg-turbo (simplejpeg), encoding.

Strict: whatever libjpeg remarks on (cut data, codes that do not fit, stray bytes) is an error; Pillow would return
a partly grey picture. Flipped bits that still form valid codes cannot be noticed by anybody.
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

Subsampling = Literal["444", "422", "420"]  # of colour against brightness
ORIENTATION = 0x0112
_COLOUR_MODELS = {1, 3}  # gray; YCbCr and RGB. CMYK and YCCK are Pillow's
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive; Huffman coded
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # lossless, hierarchical, arithmetic
_PROGRESSIVE = 0xC2
_ICC = b"ICC_PROFILE\0"
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_LUMA = {0x11, 0x21, 0x22, 0x12, 0x41}  # sampling factors of the first component that TurboJPEG knows
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")


class JpegError(ValueError):
    """libjpeg does not read these bytes in full."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What is known without decoding. `orientation` is EXIF's, 1 = upright."""

    width: int
    height: int
    components: int
    orientation: int
    turbo: bool  # whether `decode` reads it; else it is Pillow's
    progressive: bool = False  # libjpeg holds all of it while it is decoded, at a reduced scale too
    profile: bytes = b""  # ICC


def read_header(data: bytes) -> JpegHeader | None:
    """None when the bytes are no JPEG or hold no frame header that could be read."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, end, orientation, frame, progressive = 2, len(data) - 4, 0, None, False
    profile: dict[int, bytes] = {}  # number of a part -> its bytes
    while at <= end and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _ALONE:  # fill byte
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (0xDA, 0xD9):
            break
        start, length = at + 4, data[at + 2] << 8 | data[at + 3]
        if marker == 0xE1 and not orientation:
            orientation = _orientation(data[start : at + 2 + length])
        elif marker in _FRAMES or marker in _OTHER_FRAMES:
            frame, progressive = _frame(marker, data[start : at + 2 + length]), marker == _PROGRESSIVE
        elif marker == 0xE2 and data.startswith(_ICC, start):
            profile.setdefault(data[start + len(_ICC)], data[start + len(_ICC) + 2 : at + 2 + length])
        at += 2 + max(length, 2)
    if frame is None:
        return None
    parts = b"".join(profile[number] for number in sorted(profile)) if profile else b""
    return JpegHeader(*frame[:3], orientation or 1, frame[3], progressive, parts)


def decode(
    data: bytes, header: JpegHeader, halvings: int = 0, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 at 1 / 2**halvings (0 to 3) of the size, rounded up; not yet upright. Raises JpegError.

    `out`, C-contiguous and of exactly that shape, is written and returned.
    """
    height, width = -(-header.height >> halvings), -(-header.width >> halvings)
    if out is not None and (out.shape != (height, width, 3) or not out.flags.c_contiguous):
        raise ValueError(f"a buffer of shape {out.shape} for a picture of {height} x {width}, or not contiguous")
    try:
        # fastdct and fastupsample save 2 to 7 % and cost up to 12 dB: benchmarks/results/image_path.json
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=False, fastupsample=False, min_height=height, min_width=width, buffer=out
        )
    except ValueError as error:
        raise JpegError(str(error)) from None
    return pixels if out is None else out


def check_cmyk(data: bytes) -> None:
    """Raises JpegError when libjpeg does not read a CMYK or YCCK picture in full, which Pillow would not say."""
    try:
        simplejpeg.decode_jpeg(data, "CMYK", min_factor=8)
    except ValueError as error:
        raise JpegError(str(error)) from None


def encode(pixels: NDArray[np.uint8], quality: int, subsampling: Subsampling) -> bytes:
    """(H, W, 3) uint8 -> a baseline JPEG. Equal pixels give equal bytes with equal versions of Pillow.

    By Pillow, not by simplejpeg, which takes a fifth less time but below quality 96 always the coarse DCT: 0.8 dB
    lost at quality 95 and no byte saved (benchmarks/results/image_path.json).
    """
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=":".join(subsampling))
    return stream.getvalue()


def orientation_of(exif: bytes) -> int:
    """EXIF orientation 1 to 8 of a TIFF block (without "Exif"); 0 when it says none or is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 0
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == ORIENTATION:
                (value,) = struct.unpack_from(order + {3: "H", 4: "I"}.get(kind, "B"), exif, entry + 8)
                return value if 1 <= value <= 8 else 0
    except struct.error:
        pass
    return 0


def _orientation(segment: bytes) -> int:
    if segment.startswith(b"Exif\0\0"):
        return orientation_of(segment[6:])
    if segment.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        found = _XMP_ORIENTATION.search(segment)
        return int(found[1]) if found else 0
    return 0


def _frame(marker: int, segment: bytes) -> tuple[int, int, int, bool] | None:
    """(width, height, components, whether TurboJPEG reads it)."""
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        return None
    depth, height, width, components = struct.unpack_from(">BHHB", segment)
    factors = segment[7 : 6 + 3 * components : 3]
    known = components == 1 or (factors[:1] and factors[0] in _LUMA and set(factors[1:]) == {0x11})
    turbo = marker in _FRAMES and depth == 8 and components in _COLOUR_MODELS and bool(known)
    return width, height, components, turbo
