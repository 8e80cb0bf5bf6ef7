"""Formats that need a plugin of Pillow: named without it, read with it (here a stand-in)."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from PIL import Image, ImageFile

from data_pipelines.pictures.decode import DecodeError, decode_pixels
from data_pipelines.pictures.plugins import HEIC, JXL, plugin_for

HEIC_FILE = b"\x00\x00\x00\x18ftypheic" + bytes(40)
JXL_FILES = (b"\xff\x0a" + bytes(40), b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(40))


@pytest.mark.parametrize(("data", "plugin"), [(HEIC_FILE, HEIC), *((data, JXL) for data in JXL_FILES)])
def test_without_the_plugin_the_format_and_the_way_out_are_named(
    data: bytes, plugin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plugin_for(data)
    assert found is plugin
    monkeypatch.setitem(sys.modules, found.module, None)
    with pytest.raises(DecodeError) as caught:
        decode_pixels(data)
    assert str(caught.value) == f"{found.name} needs a plugin (pip install {found.package})"


def test_with_the_plugin_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class StandIn(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (3, 2), "RGB"
            self.tile = []

        def load(self) -> object:
            self.im = Image.new("RGB", (3, 2), (10, 20, 30)).im
            return None

    module = ModuleType("pillow_heif")
    module.register_heif_opener = lambda: Image.register_open("HEIF", StandIn)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    try:
        pixels = decode_pixels(HEIC_FILE)
    finally:
        Image.OPEN.pop("HEIF", None)
        Image.ID.remove("HEIF")
    assert pixels.shape == (2, 3, 3)
    assert pixels[0, 0].tolist() == [10, 20, 30]


def test_other_files_need_none() -> None:
    for data in (b"", b"\x89PNG", b"\x00\x00\x00\x18ftypavif" + bytes(40), b"\xff\xd8\xff"):
        assert plugin_for(data) is None
