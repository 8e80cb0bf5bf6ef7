"""Bytes of an image file -> RGB pixels. What cannot be read in full is refused, never guessed.

docs/images.md says what becomes of every kind of input. JPEG is read by libjpeg-turbo, everything else by Pillow.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_pipelines.pictures import jpeg
from data_pipelines.pictures.jpeg import JpegError, JpegHeader, Subsampling
from data_pipelines.pictures.plugins import plugin_for
from data_pipelines.pictures.png import PROFILE, TEXTS, without_chunks
from data_pipelines.pictures.profiles import IGNORED, Profile, pixels_to_srgb, to_srgb
from data_pipelines.pictures.resize import Resize, jpeg_halvings, square, upright
from seqtok_core.foundation.files import is_lfs_pointer

MAX_PIXELS = 50_000_000  # that are held while decoding; refused from the header on, before they are allocated
_STORED = 20  # times as many pixels a JPEG may have that is decoded at a reduced scale: more take seconds
DAMAGED = "damaged image"
# Pillow knows more, some of them by starting other programs (EPS).
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM")
_GRAY = ("1", "L", "I;16")  # LA and La too
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,  # Pillow's PNG reader
    EOFError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
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


@dataclass(frozen=True, slots=True)
class Picture:
    """`notes` name every change beyond cropping and shrinking; prepared data sets count them."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    stored: tuple[int, int]  # (width, height) of the file
    notes: tuple[str, ...] = ()
    profile: Profile | None = None  # of the pixels, as long as they are not sRGB


def decode_pixels(
    data: bytes,
    size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    out: NDArray[np.uint8] | None = None,
    resize: Resize = "fast",
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8; with `size`, (size, size, 3). Raises DecodeError.

    `out`, uint8 of the result's shape, is written and returned; a JPEG that fits is decoded straight into it.
    Without `size`, a picture of another shape than `out` is a DecodeError.
    """
    return decode_picture(data, size, max_pixels, out, resize).pixels


def decode_picture(
    data: bytes,
    size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    out: NDArray[np.uint8] | None = None,
    resize: Resize = "fast",
) -> Picture:
    """As `decode_pixels`, with notes."""
    if not data:
        raise DecodeError("empty file")
    if size is not None and out is not None and out.shape != (size, size, 3):
        raise ValueError(f"out has shape {out.shape} instead of {(size, size, 3)}")
    header = jpeg.read_header(data)
    if header is not None and header.turbo:
        picture = _decode_jpeg(data, header, size, out, resize, max_pixels)
    else:
        picture = _decode_other(data, header, max_pixels)
    notes = picture.notes
    if size is not None and min(picture.pixels.shape[:2]) < size:
        notes = (*notes, "small pictures enlarged")
    pixels = picture.pixels if size is None else square(picture.pixels, size)
    if picture.profile is not None:
        pixels, note = pixels_to_srgb(pixels, picture.profile)
        notes = (*notes, note) if note else notes
    if out is not None and pixels is not out:
        if pixels.shape != out.shape:
            raise DecodeError("another size", f"{pixels.shape[1]} x {pixels.shape[0]}, not {out.shape[1::-1]}")
        out[...] = pixels
    return Picture(np.ascontiguousarray(pixels) if out is None else out, picture.stored, notes)


def fitting_form(data: bytes, size: int) -> str | None:
    """ "png" or "jpg" when whole bytes (decode them first) are an RGB picture of that size, upright; else None."""
    header = jpeg.read_header(data)
    if header is not None:
        whole = (header.width, header.height, header.components) == (size, size, 3)
        return "jpg" if whole and header.turbo and header.orientation == 1 else None
    if not data.startswith(b"\x89PNG"):
        return None
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        plain = image.size == (size, size) and image.mode == "RGB" and "transparency" not in image.info
        if not plain or getattr(image, "is_animated", False) or data[24] != 8:  # depth: 16 bits are not kept
            return None
        image.load()  # EXIF may follow the pixels
        return "png" if _orientation(image) == 1 else None


def encode_image(pixels: NDArray[np.uint8], form: str, quality: int = 95, subsampling: Subsampling = "444") -> bytes:
    """(H, W, 3) -> a "png" or "jpg"; equal pixels give equal bytes with equal versions of the libraries."""
    if form == "jpg":
        return jpeg.encode(pixels, quality, subsampling)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _refuse_size(width: int, height: int, max_pixels: int, halvings: int = 0, progressive: bool = False) -> None:
    """`halvings`: of a scale that the picture is decoded at; a `progressive` JPEG has all its coefficients in memory at
    any scale (400 MB of 64 megapixels)."""
    halvings = 0 if progressive else halvings
    held = (-(-width >> halvings)) * (-(-height >> halvings))
    if held > max_pixels or width * height > _STORED * max_pixels:
        how = "progressive, so held in full, " if progressive else ""
        raise DecodeError("too many pixels", f"{width} x {height}, {how}limit {max_pixels} (`max_pixels`)")
    if min(width, height) < 1:
        raise DecodeError("no pixels")


def _decode_jpeg(
    data: bytes, header: JpegHeader, size: int | None, out: NDArray[np.uint8] | None, resize: Resize, max_pixels: int
) -> Picture:
    halvings = jpeg_halvings(min(header.width, header.height), size, resize)
    _refuse_size(header.width, header.height, max_pixels, halvings, header.progressive)
    shape = (-(-header.height >> halvings), -(-header.width >> halvings), 3)
    direct = out is not None and out.shape == shape and out.flags.c_contiguous
    try:
        pixels = jpeg.decode(data, header, halvings, out if direct else None)
    except JpegError as error:
        raise DecodeError(DAMAGED, str(error)) from None
    stored = header.width, header.height
    profile = Profile(header.profile, "L" if header.components == 1 else "RGB") if header.profile else None
    if header.orientation == 1:
        return Picture(pixels, stored, profile=profile)
    return Picture(upright(pixels, header.orientation), stored, ("turned upright",), profile)


def _decode_other(data: bytes, header: JpegHeader | None, max_pixels: int) -> Picture:
    """A PNG that Pillow refuses is tried again without what is said about its pixels."""
    try:
        return _decode_whole(data, header, max_pixels)
    except DecodeError as error:
        for names, notes in ((TEXTS, ()), ((*TEXTS, PROFILE), (IGNORED,))):
            lean = without_chunks(data, names) if error.reason == DAMAGED else None
            if lean is not None:
                with contextlib.suppress(DecodeError):
                    picture = _decode_whole(lean, None, max_pixels)
                    return replace(picture, notes=(*picture.notes, *notes))
        raise


def _decode_whole(data: bytes, header: JpegHeader | None, max_pixels: int) -> Picture:
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # who allows us more allows Pillow more
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # Pillow's remarks on odd EXIF
        try:
            image = Image.open(io.BytesIO(data), formats=_formats(data))
            _refuse_size(*image.size, max_pixels)
            if header is not None and header.components == 4:
                jpeg.check_cmyk(data)
            animated = image.format != "MPO" and getattr(image, "is_animated", False)
            image.load()
            return _to_rgb(image, ["first frame of several"] if animated else [])
        except DecodeError:
            raise
        except UnidentifiedImageError:
            raise DecodeError("a git-lfs pointer" if is_lfs_pointer(data[:64]) else "not an image") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DecodeError("too many pixels") from None
        except (JpegError, *_PILLOW_ERRORS) as error:
            raise DecodeError(DAMAGED, f"{type(error).__name__}: {error}") from None


def _formats(data: bytes) -> tuple[str, ...]:
    """What Pillow may take it for. Raises DecodeError where a plugin is missing."""
    plugin = plugin_for(data)
    if plugin is None:
        return FORMATS
    if not plugin.is_there():
        raise DecodeError(f"{plugin.name} needs a plugin", f"pip install {plugin.package}")
    return (plugin.format,)


def _to_rgb(image: Image.Image, notes: list[str]) -> Picture:
    orientation = _orientation(image)
    mode = "CMYK" if image.mode == "CMYK" else "L" if image.mode.startswith(_GRAY) and image.mode != "LAB" else "RGB"
    found = image.info.get("icc_profile")
    profile = Profile(bytes(found), mode) if found else None
    if image.mode.startswith("I;16"):  # convert("RGB") would clip nearly everything to white
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
        notes.append("16 bits scaled to 8")
    elif image.mode in ("I", "F"):
        raise DecodeError("unsupported depth", f"mode {image.mode}")
    elif image.mode == "LAB":
        raise DecodeError("unsupported colours", f"mode {image.mode}")
    elif image.mode == "CMYK":
        turned, note = to_srgb(image, profile) if profile is not None else (None, "")
        notes += [note] if note else []
        notes += ["CMYK turned to RGB"] if turned is None else []
        image, profile = turned or image, None
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            notes.append("transparency laid on white")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    if orientation != 1:
        notes.append("turned upright")
    return Picture(upright(np.asarray(image.convert("RGB")), orientation), image.size, tuple(notes), profile)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where EXIF is absent or damaged."""
    try:
        value = image.getexif().get(jpeg.ORIENTATION, 1)
    except _PILLOW_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
