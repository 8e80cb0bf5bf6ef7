"""PNG: the picture without what is said about it. Pillow refuses long texts; the pixels do not depend on them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PROFILE = b"iCCP"
_XMP = b"XML:com.adobe.xmp\0\0"  # not compressed; may say how the picture is turned
_LONG = 1 << 20  # bytes


def without_chunks(data: bytes, names: Collection[bytes]) -> bytes | None:
    """A PNG without its chunks of these names; None for another file, and where it has none of them."""
    if not data.startswith(_SIGNATURE):
        return None
    kept = [
        data[start:end]
        for name, start, end in _chunks(data)
        if name not in names or (data.startswith(_XMP, start + 8) and end - start < _LONG)
    ]
    lean = _SIGNATURE + b"".join(kept)
    return lean if len(lean) < len(data) else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of each; damaged ends are part of the last."""
    at = len(_SIGNATURE)
    while at < len(data):
        end = min(at + 12 + int.from_bytes(data[at : at + 4], "big"), len(data))
        yield data[at + 4 : at + 8], at, end
        at = end
