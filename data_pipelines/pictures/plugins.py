"""Formats that Pillow reads with a plugin alone: named where the plugin is missing, read where it is installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Plugin:
    name: str  # of the format
    format: str  # Pillow's word for it
    module: str
    package: str  # what is installed

    def is_there(self) -> bool:
        """Whether the format can be read; registers it."""
        try:
            module = importlib.import_module(self.module)
        except ImportError:
            return False
        if self.format not in Image.OPEN and hasattr(module, "register_heif_opener"):
            module.register_heif_opener()
        return self.format in Image.OPEN


HEIC = Plugin("HEIC", "HEIF", "pillow_heif", "pillow-heif")
JXL = Plugin("JPEG XL", "JXL", "pillow_jxl", "pillow-jxl-plugin")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")


def plugin_for(data: bytes) -> Plugin | None:
    """By the first bytes of a file."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return HEIC
    return JXL if data.startswith(_JXL_STARTS) else None
