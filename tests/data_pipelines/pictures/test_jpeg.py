"""JPEG: what libjpeg-turbo reads equals Pillow pixel by pixel, strictly, into a buffer, upright, at the right scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data_pipelines.pictures import jpeg
from data_pipelines.pictures.decode import DecodeError, decode_picture, decode_pixels, encode_image, fitting_form
from data_pipelines.pictures.resize import jpeg_halvings, square, upright
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.file_sources import folder_source
from data_pipelines.sources.records import Fields
from tests.data_pipelines.prepare.broken_pictures import turned
from tests.data_pipelines.toy import file_bytes, picture

KINDS = {
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0"},
    "progressive": {"progressive": True},
    "rgb": {"keep_rgb": True},
    "restarts": {"restart_marker_blocks": 2},
    "optimized": {"optimize": True},
}


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth, so that a difference is the reader's and not the noise's."""
    return picture(seed, (4, 3)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_whole_pictures_equal_pillow(options):
    data = file_bytes(photo(99, 61), "JPEG", **options)
    header = jpeg.read_header(data)
    assert header is not None
    assert header.turbo
    assert (header.width, header.height, header.components, header.orientation) == (99, 61, 3, 1)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_pixels(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_reduced_scales_have_the_right_size_and_content(options, halvings):
    image = photo(512, 256)
    data = file_bytes(image, "JPEG", quality=95, **options)
    made = jpeg.decode(data, jpeg.read_header(data), halvings)
    small = image.resize((512 >> halvings, 256 >> halvings), Image.Resampling.BOX)
    assert np.abs(made.astype(float) - np.asarray(small)).mean() < 4
    odd = file_bytes(photo(130, 67), "JPEG", **options)
    assert jpeg.decode(odd, jpeg.read_header(odd), halvings).shape == (-(-67 >> halvings), -(-130 >> halvings), 3)


def test_a_scale_is_taken_when_it_lands_on_the_size_or_leaves_twice_of_it():
    cases = {(512, 256): 1, (511, 256): 1, (510, 256): 0, (640, 256): 0, (1024, 256): 2, (1030, 256): 1}
    cases |= {(2048, 256): 3, (4096, 256): 3, (512, 64): 3, (600, 64): 2, (256, 256): 0, (100, 256): 0}
    assert {case: jpeg_halvings(*case, "fast") for case in cases} == cases
    assert jpeg_halvings(512, 256, "exact") == jpeg_halvings(512, None, "fast") == 0


def test_fast_and_exact_differ_little_and_only_where_a_scale_is_reduced():
    data = file_bytes(photo(96, 64), "JPEG", quality=95)
    fast, exact = (decode_pixels(data, 32, resize=how).astype(float) for how in ("fast", "exact"))
    assert 0 < np.abs(fast - exact).mean() < 2
    assert np.array_equal(decode_pixels(data, 40), decode_pixels(data, 40, resize="exact"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_equal_pillow(orientation):
    data = turned(orientation, photo(40, 24))
    with Image.open(io.BytesIO(data)) as image:
        stored, wanted = np.asarray(image), np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decode_pixels(data), wanted)
    assert np.array_equal(upright(stored, orientation), wanted)
    assert np.abs(decode_pixels(data, 12).astype(int) - square(wanted, 12)).mean() < 4
    assert fitting_form(turned(orientation, photo(8, 8)), 8) == ("jpg" if orientation == 1 else None)


def test_a_fitting_picture_is_decoded_into_the_buffer():
    data = file_bytes(photo(16, 16), "JPEG")
    batch = np.zeros((3, 16, 16, 3), np.uint8)
    assert decode_pixels(data, 16, out=batch[1]).base is batch
    assert np.array_equal(batch[1], decode_pixels(data))
    assert not batch[0].any()
    assert not batch[2].any()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [16, 20, 40])
def test_a_buffer_receives_what_would_be_returned(form, size):
    data = file_bytes(photo(40, 32), form)
    wanted = decode_pixels(data, size)
    planes = np.zeros((3, size, size), np.uint8)
    for out in (np.zeros((size, size, 3), np.uint8), planes.transpose(1, 2, 0)):
        assert decode_pixels(data, size, out=out) is out
        assert np.array_equal(out, wanted)


def test_a_buffer_of_another_shape():
    data = file_bytes(photo(16, 16), "JPEG")
    with pytest.raises(DecodeError, match="another size"):
        decode_pixels(data, out=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="out has shape"):
        decode_pixels(data, 16, out=np.zeros((8, 8, 3), np.uint8))


def test_libjpeg_never_writes_beyond_a_buffer():
    data = file_bytes(photo(16, 16), "JPEG")
    header = jpeg.read_header(data)
    for out in (np.zeros((15, 16, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match="buffer of shape"):
            jpeg.decode(data, header, 0, out)
        assert not out.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([{}, {"progressive": True}]))
def test_a_cut_jpeg_is_never_read(place, options):
    data = file_bytes(photo(64, 48), "JPEG", **options)
    with pytest.raises(DecodeError):
        decode_picture(data[: place % len(data)], 16)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_headers_of_any_bytes(data, cut):
    whole = turned(6, photo(40, 24))
    for content in (b"\xff\xd8\xff" + data, whole[:cut] + data):
        header = jpeg.read_header(content)
        assert header is None or 1 <= header.orientation <= 8
    assert 0 <= jpeg.orientation_of(b"II*\0" + data) <= 8


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_encoded_pictures_have_the_stated_quality_and_colours(subsampling):
    pixels = np.asarray(photo(32, 32))
    data = encode_image(pixels, "jpg", 95, subsampling)
    assert data == encode_image(pixels[::-1][::-1], "jpg", 95, subsampling), "equal pixels, equal bytes"
    factors = {"444": 0x11, "422": 0x21, "420": 0x22}[subsampling]
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == factors
    assert np.abs(decode_pixels(data).astype(int) - pixels).mean() < 3
    assert fitting_form(data, 32) == "jpg"


def test_settings_of_a_preparation_reach_its_pictures(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(file_bytes(picture(0, (64, 64)), "JPEG"))
    (tmp_path / "in/captions.jsonl").write_text('{"file_name": "a.jpg", "captions": ["a"]}\n')
    source = folder_source(tmp_path / "in", Fields())
    made = {}
    for number, changed in enumerate([{}, {"quality": 50}, {"subsampling": "420"}, {"resize": "exact"}]):
        out = tmp_path / str(number)
        prepare({"train": source}, out, PrepareConfig(size=32, form="jpg", **changed))
        made[number] = open_shards(out, "train").read_image(0)
    assert len(set(made.values())) == 4
    assert len(made[1]) < len(made[0]) * 0.7
    assert np.array_equal(decode_pixels(made[0]), decode_pixels(encode_image(fast_pixels(source), "jpg")))


def fast_pixels(source) -> np.ndarray:
    return decode_pixels(next(source.pairs(0, 1)).image, 32)
