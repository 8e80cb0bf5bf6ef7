"""Colour profiles: numbers of another colour space become sRGB, those of sRGB stay, what is damaged is ignored."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.pictures.decode import decode_picture, decode_pixels
from data_pipelines.pictures.profiles import CONVERTED, IGNORED
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.shard_set import open_shards
from tests.data_pipelines.pictures import icc
from tests.data_pipelines.prepare.broken_pictures import RED, flat
from tests.data_pipelines.sources.test_folders import put
from tests.data_pipelines.sources.test_tables import opened
from tests.data_pipelines.toy import file_bytes, picture

GREEN = (RED[1], RED[0], RED[2])


def mean(data: bytes, size: int | None = None) -> np.ndarray:
    return decode_pixels(data, size).reshape(-1, 3).mean(0)


@pytest.mark.parametrize("size", [None, 8, 16, 100])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_numbers_of_another_space_become_srgb_at_every_size_and_in_every_format(form, size):
    options = {"quality": 95} if form in ("JPEG", "WEBP") else {}
    data = file_bytes(flat(size=(40, 32)), form, icc_profile=icc.swapped(), **options)
    assert CONVERTED in decode_picture(data, size).notes
    np.testing.assert_allclose(mean(data, size), GREEN, atol=3)
    if size is not None:
        out = np.zeros((size, size, 3), np.uint8)
        assert np.array_equal(decode_pixels(data, size, out=out), decode_pixels(data, size))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_what_is_srgb_by_content_or_broken_changes_no_pixel(form):
    plain = decode_picture(file_bytes(picture(0, (40, 32)), form), 16)
    for profile, notes in ((icc.srgb(), ()), (b"\xff" * 200, (IGNORED,)), (icc.swapped()[:300], (IGNORED,))):
        found = decode_picture(file_bytes(picture(0, (40, 32)), form, icc_profile=profile), 16)
        assert np.array_equal(found.pixels, plain.pixels)
        assert found.notes == notes


def test_gray_and_ink_have_profiles_of_their_own():
    for form in ("JPEG", "PNG"):
        data = file_bytes(flat("L", 128), form, icc_profile=icc.linear_gray())
        np.testing.assert_allclose(mean(data, 16), (188, 188, 188), atol=2)
        assert decode_picture(data).notes == (CONVERTED,)
    for form in ("JPEG", "TIFF"):
        data = file_bytes(flat("CMYK", (0, 200, 200, 0)), form, icc_profile=icc.black_ink_only())
        assert decode_picture(data).notes == (CONVERTED,)
        np.testing.assert_allclose(mean(data), (255, 255, 255), atol=3)
    assert decode_picture(file_bytes(flat("L", 128), "JPEG", icc_profile=icc.srgb())).notes == ()
    clear = flat("RGBA", (*RED, 0))
    assert (mean(file_bytes(clear, icc_profile=icc.swapped())) == 255).all(), "what is clear is white in every space"


@pytest.mark.parametrize(
    ("mode", "profile"), [("RGB", icc.linear_gray), ("L", icc.black_ink_only), ("CMYK", icc.swapped)]
)
def test_a_profile_of_other_numbers_is_ignored(mode, profile):
    image = picture(0, (40, 32), mode)
    found = decode_picture(file_bytes(image, "JPEG", icc_profile=profile()))
    assert IGNORED in found.notes
    assert np.array_equal(found.pixels, decode_pixels(file_bytes(image, "JPEG")))


def test_a_fitting_picture_is_kept_byte_for_byte_only_if_its_numbers_are_srgb(tmp_path):
    profiles = {"srgb": icc.srgb(), "swapped": icc.swapped()}
    files = {name: file_bytes(flat(size=(16, 16)), icc_profile=profile) for name, profile in profiles.items()}
    put(tmp_path / "in", {f"{name}/1.png": data for name, data in files.items()})
    manifest = prepare(opened(tmp_path / "in"), tmp_path / "out", PrepareConfig(size=16))
    assert dict(manifest.splits["train"].notes) == {"pictures kept byte for byte": 1, CONVERTED: 1}
    shards = open_shards(tmp_path / "out", "train")
    read = {shards.key(n): shards.read_image(n) for n in range(2)}
    assert read["srgb_1"] == files["srgb"]
    np.testing.assert_allclose(mean(read["swapped_1"]), GREEN, atol=2)
