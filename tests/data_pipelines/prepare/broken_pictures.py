"""Picture files that break readers, or that readers disagree about; each with what docs/images.md says of it.

Everything is made here, from a few bytes: no file of another project, nothing random but seeded noise.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data_pipelines.toy import file_bytes, picture

Colour = tuple[int, int, int]
RED, BLUE, WHITE = (200, 60, 40), (40, 60, 200), (255, 255, 255)
DAMAGED, NO_IMAGE, BOMB = "damaged image", "not an image", "too many pixels"


@dataclass(frozen=True)
class Broken:
    """`outcome` is "written", or the reason that the sample is dropped for."""

    name: str  # of the file
    data: bytes
    outcome: str = "written"
    colour: Colour | None = None  # mean of the written picture, within 3 levels
    note: str = ""  # counted in dataset.json


def broken_pictures(marker: Path) -> list[Broken]:
    """`marker` is a file that comes into being when a picture is run as a program or a pickle."""
    return [*_jpegs(), *_colours(), *_animations(), *_odd_but_whole(), *_damaged(), *_no_pictures(marker), *_bombs()]


def flat(mode: str = "RGB", colour: object = RED, size: tuple[int, int] = (40, 24)) -> Image.Image:
    return Image.new(mode, size, colour)


def png(width: int, height: int, depth: int, kind: int, row: bytes | None, more: bytes = b"") -> bytes:
    """A PNG of equal rows (None: no pixel data to speak of); `kind` is the colour type."""
    pixels = b"\0" * 100 if row is None else (b"\0" + row) * height
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND")


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def turned(orientation: int, image: Image.Image | None = None, form: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_bytes(image or flat(), form, exif=exif)


def _segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG with one more segment at its beginning."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


def _jpegs() -> list[Broken]:
    red = file_bytes(flat(), "JPEG")
    cmyk = file_bytes(flat("CMYK", (255, 0, 0, 0)), "JPEG")
    ycck = cmyk.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    assert ycck != cmyk
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    xmp_turned = _segment(file_bytes(picture(1, (40, 24)), "JPEG"), 0xE1, xmp)
    rotated = [Broken(f"exif{n}.jpg", turned(n), "written", RED, "turned upright" if n > 1 else "") for n in range(9)]
    return [
        *rotated,
        Broken("exif 200.jpg", turned(200), "written", RED),
        Broken("xmp orientation.jpg", xmp_turned, note="turned upright"),
        Broken("progressive.jpg", file_bytes(flat(), "JPEG", progressive=True), colour=RED),
        Broken("rgb.jpg", file_bytes(flat(), "JPEG", keep_rgb=True), colour=RED),
        Broken("gray.jpg", file_bytes(flat("L", 100), "JPEG"), colour=(100, 100, 100)),
        Broken("cmyk.jpg", cmyk, colour=(0, 255, 255), note="CMYK turned to RGB"),
        Broken("ycck.jpg", ycck, colour=(77, 255, 30), note="CMYK turned to RGB"),
        Broken("trailing bytes.jpg", red + b"\0 more \xff" * 50, colour=RED),
        Broken("huge exif.jpg", _segment(red, 0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\1" * 65000), colour=RED),
        Broken("damaged exif.jpg", _segment(red, 0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"), colour=RED),
        Broken(
            "corrupt icc.jpg",
            _segment(red, 0xE2, b"ICC_PROFILE\0\1\1" + b"\xff" * 99),
            colour=RED,
            note="colour profile ignored",
        ),
        Broken("mpo.jpg", file_bytes(flat(), "MPO", save_all=True, append_images=[flat(colour=BLUE)]), colour=RED),
    ]


def _colours() -> list[Broken]:
    gray16 = Image.fromarray(np.full((24, 40), 30_000, np.uint16))
    laid, scaled = "transparency laid on white", "16 bits scaled to 8"
    half = (300 * 24, 40)
    clear = flat("P", 0)
    clear.putpalette([9, 9, 9])
    return [
        Broken("16 bit gray.png", file_bytes(gray16), "written", (117, 117, 117), scaled),
        Broken("16 bit gray tiff.tif", file_bytes(gray16, "TIFF"), "written", (117, 117, 117), scaled),
        Broken("16 bit rgb.png", png(40, 24, 16, 2, b"\xc8\x01\x3c\x02\x28\x03" * 40), colour=RED),
        Broken("16 bit rgba.png", png(40, 24, 16, 6, b"\0" * 8 * 40), "written", WHITE, laid),
        Broken("4 bit gray.png", png(40, 24, 4, 0, b"\x77" * 20), colour=(119, 119, 119)),
        Broken("palette.png", file_bytes(flat().quantize()), colour=RED),
        Broken("palette with hole.png", file_bytes(clear, transparency=0), "written", WHITE, laid),
        Broken("colour key.png", file_bytes(flat(), transparency=RED), "written", WHITE, laid),
        Broken("gray alpha.png", file_bytes(flat("LA", (0, 128))), "written", (127, 127, 127), laid),
        Broken("clear.png", file_bytes(flat("RGBA", (*RED, 0))), "written", WHITE, laid),
        Broken("opaque.png", file_bytes(flat("RGBA", (*RED, 255))), colour=RED),
        Broken("1 bit.png", file_bytes(flat("1", 1)), colour=WHITE),
        Broken(
            "cmyk tiff.tif",
            file_bytes(flat("CMYK", (0, 255, 255, 0)), "TIFF"),
            "written",
            (255, 0, 0),
            "CMYK turned to RGB",
        ),
        Broken("float.tif", file_bytes(flat("F", 0.5), "TIFF"), "unsupported depth"),
        Broken("32 bit.tif", file_bytes(flat("I", 7), "TIFF"), "unsupported depth"),
        Broken("lab.tif", file_bytes(flat("LAB", (50, 0, 0)), "TIFF"), "unsupported colours"),
        Broken("windows.bmp", file_bytes(flat(), "BMP"), colour=RED),
        Broken("web.webp", file_bytes(flat(), "WEBP", lossless=True), colour=RED),
        Broken("plain.ppm", file_bytes(flat(), "PPM"), colour=RED),
        Broken("wrong ending.gif", file_bytes(flat()), colour=RED),
        Broken("turned.png", turned(6, form="PNG"), "written", RED, "turned upright"),
        Broken("one pixel.png", file_bytes(flat(size=(1, 1))), "written", RED, "small pictures enlarged"),
        Broken("extreme.png", file_bytes(flat(size=(half[0], 1))), "written", RED, "small pictures enlarged"),
    ]


def _animations() -> list[Broken]:
    options = {"save_all": True, "append_images": [flat(colour=BLUE)], "duration": 100}
    pages = file_bytes(flat(), "TIFF", save_all=True, append_images=[flat(colour=BLUE)])
    note = "first frame of several"
    return [
        Broken("animated gif.gif", file_bytes(flat(), "GIF", **options), "written", RED, note),
        Broken("animated webp.webp", file_bytes(flat(), "WEBP", lossless=True, **options), "written", RED, note),
        Broken("animated png.png", file_bytes(flat(), "PNG", **options), "written", RED, note),
        Broken("pages.tif", pages, "written", RED, note),
    ]


def _odd_but_whole() -> list[Broken]:
    icc = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
    long = zlib.compress(bytes(10**8))
    plain = chunk(b"tEXt", b"workflow\0" + b"x" * (2 << 20))
    more = {
        "text bomb.png": chunk(b"zTXt", b"a\0\0" + long),
        "long texts.png": plain + chunk(b"iTXt", b"a\0\1\0\0\0" + long),
    }
    huge = chunk(b"iCCP", b"p\0\0" + long)
    rows = bytes(RED) * 40
    return [
        Broken("corrupt icc png.png", png(40, 24, 8, 2, rows, icc), colour=RED, note="colour profile ignored"),
        Broken("huge icc.png", png(40, 24, 8, 2, rows, huge), colour=RED, note="colour profile ignored"),
        *(Broken(name, png(40, 24, 8, 2, rows, said), colour=RED) for name, said in more.items()),
        Broken("image with spaces  and ünïcödé 图.png", file_bytes(flat()), colour=RED),
        Broken("new\nline.png", file_bytes(flat()), colour=RED),
        Broken("-rf; $(touch x) %s {0} .png", file_bytes(flat()), colour=RED),
        Broken("n" * 240 + ".png", file_bytes(flat()), colour=RED),
    ]


def _damaged() -> list[Broken]:
    noise = picture(3, (64, 64))
    jpeg, whole = file_bytes(noise, "JPEG", quality=90), file_bytes(noise)
    flipped = bytearray(jpeg)
    flipped[-700:-690] = b"\xff\xd9\x12" + flipped[-697:-690]
    cut = {f"cut at {n}.jpg": jpeg[:n] for n in (2, 100, len(jpeg) // 2, len(jpeg) - 100, len(jpeg) - 2)}
    cut |= {f"png cut at {n}.png": whole[:n] for n in (30, len(whole) // 2, len(whole) - 60)}
    cut |= {"cut gif.gif": file_bytes(noise, "GIF")[:900], "cut webp.webp": file_bytes(noise, "WEBP")[:900]}
    cut |= {
        "cut bmp.bmp": file_bytes(noise, "BMP")[:900],
        "cut cmyk.jpg": file_bytes(noise.convert("CMYK"), "JPEG")[:-99],
    }
    four = bytearray(file_bytes(noise.convert("CMYK"), "JPEG", quality=90))
    four[-700:-690] = b"\xff\xd9\x12" + four[-697:-690]
    wrong_sum = bytearray(whole)
    wrong_sum[len(whole) // 2] ^= 1
    files = {**cut, "flipped.jpg": bytes(flipped), "flipped cmyk.jpg": bytes(four), "flipped png.png": bytes(wrong_sum)}
    tiny = {"cut at 2.jpg", "png cut at 30.png"}
    return [Broken(name, data, NO_IMAGE if name in tiny else DAMAGED) for name, data in files.items()]


def _no_pictures(marker: Path) -> list[Broken]:
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({marker}) (w) file closefile\n"
    files = {
        "page.jpg": b"<!DOCTYPE html><html><body>404 not found</body></html>",
        "zeros.jpg": bytes(1000),
        "noise.jpg": np.random.default_rng(0).integers(0, 256, 1000, np.uint8).tobytes(),
        "magic.png": b"\x88" + file_bytes(flat())[1:],
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "script.eps": postscript.encode(),
        "paper.pdf": b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\n",
        "evil.jpg": pickle.dumps(Evil(str(marker))),
    }
    cases = [Broken(name, data, NO_IMAGE) for name, data in files.items()]
    return [*cases, Broken("empty.jpg", b"", "empty file"), Broken("0x0.jpg", _size(0, 0), "no pixels")]


class Evil:
    """Unpickling makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


def _size(width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    data = bytearray(file_bytes(flat(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _bombs() -> list[Broken]:
    screen = bytearray(file_bytes(flat(), "GIF"))
    screen[6:10] = struct.pack("<HH", 65535, 65535)
    return [
        Broken("900 megapixels.png", png(30_000, 30_000, 8, 2, None), BOMB),
        Broken("120 megapixels.png", png(12_000, 10_000, 8, 2, None), BOMB),
        Broken("4 gigapixels.jpg", _size(65_000, 65_000), BOMB),
        Broken("4 gigapixels of gif.gif", bytes(screen), BOMB),
    ]
