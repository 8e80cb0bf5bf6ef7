"""Bytes -> RGB: every documented form, nothing guessed, bombs refused before they are allocated."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.pictures.decode import DecodeError, decode_pixels, encode_image, fitting_form
from data_pipelines.pictures.resize import square
from tests.data_pipelines.toy import file_bytes, picture


def flat(mode: str, color: object, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new(mode, size, color)


def color_of(data: bytes) -> list[int]:
    return decode_pixels(data)[0, 0].tolist()


def test_png_pixels_come_back_exactly():
    image = picture(1)
    assert np.array_equal(decode_pixels(encode_image(np.asarray(image), "png")), np.asarray(image))


def test_every_mode_becomes_documented_rgb():
    assert color_of(file_bytes(flat("L", 100))) == [100, 100, 100]
    assert color_of(file_bytes(flat("1", 1))) == [255, 255, 255]
    assert color_of(file_bytes(flat("RGBA", (200, 0, 0, 0)))) == [255, 255, 255], "alpha lies on white"
    assert color_of(file_bytes(flat("LA", (0, 128)))) == [127, 127, 127]
    assert color_of(file_bytes(flat("P", 0).convert("RGB").quantize())) == [0, 0, 0]
    assert color_of(file_bytes(flat("RGB", (9, 8, 7)), transparency=(9, 8, 7))) == [255, 255, 255]
    cyan = color_of(file_bytes(flat("CMYK", (255, 0, 0, 0)), "JPEG"))
    assert cyan[0] < 40
    assert min(cyan[1:]) > 200


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.full((4, 6), 30_000, dtype=np.uint16)
    assert color_of(file_bytes(Image.fromarray(values))) == [117, 117, 117]


def test_the_first_frame_of_an_animation_counts():
    frames = [flat("RGB", (250, 0, 0)), flat("RGB", (0, 250, 0))]
    data = file_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert color_of(data) == [250, 0, 0]


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    data = file_bytes(picture(0, (12, 8)), "JPEG", exif=exif)
    assert decode_pixels(data).shape == (12, 8, 3)
    assert fitting_form(file_bytes(picture(0, (8, 8)), "JPEG", exif=exif), 8) is None


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [8_000, 11_000, 30_000])
def test_a_bomb_is_refused_before_it_is_allocated(side):
    tracemalloc.start()
    with pytest.raises(DecodeError, match="too many pixels"):
        decode_pixels(bomb(side, side))
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_what_is_no_whole_image_is_refused_with_a_reason():
    whole = file_bytes(picture(0, (64, 64)))
    jpeg = file_bytes(picture(0, (64, 64)), "JPEG")
    cases = {b"": "empty file", b"<html></html>": "not an image"}
    cases |= {whole[: len(whole) // 2]: "damaged image", jpeg[: len(jpeg) // 2]: "damaged image"}
    for data, reason in cases.items():
        with pytest.raises(DecodeError) as caught:
            decode_pixels(data)
        assert caught.value.reason == reason


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]), st.data())
def test_damaged_files_raise_nothing_but_decode_error(form, data):
    content = bytearray(file_bytes(picture(3), form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        pixels = decode_pixels(bytes(content[:cut]), size=4)
    except DecodeError:
        return
    assert pixels.shape == (4, 4, 3)


def test_square_keeps_the_middle_and_its_colours():
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = (10, 200, 30)
    made = square(wide, 10)
    assert made.shape == (10, 10, 3)
    assert np.abs(made[:, 2:-2].astype(int) - (10, 200, 30)).max() <= 1


def test_square_averages_instead_of_skipping():
    checks = ((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)
    made = square(np.repeat(checks[..., None], 3, 2), 8)
    assert np.abs(made.astype(int) - 127).max() < 12


def test_a_fitting_picture_is_not_touched():
    image = picture(0, (8, 8))
    assert np.array_equal(square(np.asarray(image), 8), np.asarray(image))
    assert fitting_form(file_bytes(image), 8) == "png"
    assert fitting_form(file_bytes(image, "JPEG"), 8) == "jpg"
    assert fitting_form(file_bytes(image), 9) is None
    assert fitting_form(file_bytes(image.convert("RGBA")), 8) is None
    assert fitting_form(file_bytes(image, "WEBP"), 8) is None


def test_what_is_held_while_decoding_counts_not_what_the_file_holds():
    """A baseline JPEG is decoded at an eighth; a progressive one, a PNG and a whole picture are held in full."""
    image = picture(0, (400, 400))
    jpeg, progressive, png = (file_bytes(image, "JPEG"), file_bytes(image, "JPEG", progressive=True), file_bytes(image))
    assert decode_pixels(jpeg, 16, max_pixels=8_000).shape == (16, 16, 3)
    refused = [(jpeg, None, 8_000), (jpeg, 16, 2_499), (jpeg, 16, 7_999), (progressive, 16, 8_000), (png, 16, 8_000)]
    for data, size, most in refused:
        with pytest.raises(DecodeError, match=r"too many pixels.*limit \d+ \(`max_pixels`\)"):
            decode_pixels(data, size, max_pixels=most)
    with pytest.raises(DecodeError, match="400 x 400, progressive, so held in full, limit 159999"):
        decode_pixels(progressive, 16, max_pixels=159_999)
    for data in (jpeg, progressive, png):
        assert decode_pixels(data, 16, max_pixels=160_000).shape == (16, 16, 3)


def test_who_allows_more_pixels_is_not_stopped_by_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DecodeError, match="too many pixels"):
        decode_pixels(file_bytes(picture(0, (40, 40))), max_pixels=100)
    assert decode_pixels(file_bytes(picture(0, (40, 40))), max_pixels=1_600).shape == (40, 40, 3)
