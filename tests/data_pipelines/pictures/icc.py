"""Colour profiles made by hand, each of which changes colours in a way that is plain to see."""

from __future__ import annotations

import struct

from PIL import ImageCms


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """sRGB, but what the file calls red is green."""
    data = bytearray(srgb())
    places = {}
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        name, start, size = struct.unpack_from(">4sII", data, 132 + 12 * number)
        places[name] = slice(start, start + size)
    red, green = data[places[b"rXYZ"]], data[places[b"gXYZ"]]
    data[places[b"rXYZ"]], data[places[b"gXYZ"]] = green, red
    return bytes(data)


def linear_gray() -> bytes:
    """Gray values that are proportional to light: 128 is sRGB's 188."""
    return _profile(b"GRAY", b"XYZ ", {b"wtpt": _xyz(0.9642, 1, 0.8249), b"kTRC": b"curv" + bytes(8)})


def black_ink_only() -> bytes:
    """CMYK of which black alone counts: cyan, magenta and yellow leave the paper white."""
    corners = b"".join(bytes([0 if n % 2 else 255, 128, 128]) for n in range(16))  # L, a, b; the last ink is black
    identity = struct.pack(">9I", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    table = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + corners + bytes(range(256)) * 3
    )
    return _profile(b"CMYK", b"Lab ", {b"wtpt": _xyz(0.9642, 1, 0.8249), b"A2B0": table, b"A2B1": table}, kind=b"prtr")


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(space: bytes, pcs: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    tags = {**tags, b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)}
    tags[b"cprt"] = b"text" + bytes(4) + b"x\0"
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    size = at + len(body)
    white = struct.pack(">3i", 63190, 65536, 54061)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, kind, space, pcs) + bytes(12) + b"acsp" + bytes(28)
    return (head + white).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
