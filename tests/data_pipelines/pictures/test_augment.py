"""Augmentation: a function of (seed, epoch, sample), inside the picture, and of the right size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.pictures.augment import AugmentConfig, augment, needs, resized_box
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.foundation.random_bits import philox

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


def drawn(config: AugmentConfig, seed: int = 0, epoch: int = 0, index: int = 0, size: int = 16) -> np.ndarray:
    out = np.zeros((size, size, 3), dtype=np.uint8)
    augment(PICTURE, out, config, seed, epoch, index)
    return out


CONFIGS = [
    AugmentConfig(crop="shift", from_size=24),
    AugmentConfig(crop="shift", padding=4, flip=0.5),
    AugmentConfig(crop="resized", flip=0.5),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_it_depends_on_seed_epoch_and_sample_and_on_nothing_else(config):
    def several(seed: int, epoch: int, first: int) -> list[bytes]:
        return [drawn(config, seed, epoch, first + 10 * n).tobytes() for n in range(4)]

    one = several(3, 5, 7)
    assert several(3, 5, 7) == one
    for other in ((4, 5, 7), (3, 6, 7), (3, 5, 8)):
        assert several(*other) != one


def test_a_run_of_today_continues_tomorrow():
    """The draws are part of what a resumed run must repeat."""
    assert philox(3, (1 << 62) + 5, 7).random_raw(2).tolist() == FIRST
    large = [philox(0, stream).random_raw() for stream in (1 << 63, (1 << 63) + 1, 3 << 62, (3 << 62) + 1)]
    assert len(set(large)) == 4, "streams above 2**63 are told apart"


FIRST = [8439944149386210080, 3850343804949312899]


def test_a_shift_is_a_window_of_the_picture():
    windows = {PICTURE[t : t + 16, left : left + 16].tobytes() for t in range(9) for left in range(9)}
    seen = {drawn(AugmentConfig(crop="shift", from_size=24), index=n).tobytes() for n in range(600)}
    assert seen <= windows
    assert len(seen) == 81, "every window comes"


def test_padding_mirrors_the_picture():
    padded = np.pad(PICTURE, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[t : t + 24, left : left + 24].tobytes() for t in range(5) for left in range(5)}
    seen = {drawn(AugmentConfig(crop="shift", padding=2), index=n, size=24).tobytes() for n in range(200)}
    assert seen == windows


def test_flips_come_as_often_as_asked():
    flips = [np.array_equal(drawn(AugmentConfig(flip=0.3), index=n, size=24), PICTURE[:, ::-1]) for n in range(2000)]
    same = [np.array_equal(drawn(AugmentConfig(flip=0.3), index=n, size=24), PICTURE) for n in range(2000)]
    assert all(a != b for a, b in zip(flips, same, strict=True))
    assert abs(np.mean(flips) - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    assert np.array_equal(drawn(AugmentConfig(), size=24), PICTURE)


SHARES = st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)).map(sorted).map(tuple)
RATIOS = st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)).map(sorted).map(tuple)


@given(SHARES, RATIOS, st.integers(1, 99), st.integers(0, 2**32))
def test_a_resized_box_lies_inside_and_has_the_area_and_ratio_asked_for(scale, ratio, side, seed):
    config = AugmentConfig(crop="resized", scale=scale, ratio=ratio)
    left, top, width, height = resized_box(side, config, np.random.default_rng(seed).random((10, 4)))
    assert 0 <= left <= left + width <= side
    assert 0 <= top <= top + height <= side
    if (width, height) != (side, side):
        slack = (width + height + 1) / 2  # both sides are rounded
        assert scale[0] * side**2 - slack <= width * height <= scale[1] * side**2 + slack


def test_a_resized_crop_equals_pillows():
    config = AugmentConfig(crop="resized", scale=(0.3, 0.6))
    draws = (philox(1, (1 << 62) + 2, 3).random_raw(41) >> np.uint64(11)) * 2.0**-53
    left, top, width, height = resized_box(24, config, draws[1:].reshape(-1, 4))
    crop = Image.fromarray(PICTURE[top : top + height, left : left + width])
    expected = np.asarray(crop.resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(drawn(config, 1, 2, 3), expected)


def test_settings_that_do_not_fit_are_named():
    for wrong, words in (
        ({"scale": [0.5, 1.2]}, "scale"),
        ({"ratio": [2, 1]}, "ratio"),
        ({"flip": 1.5}, "flip"),
        ({"padding": 3}, "need crop"),
    ):
        with pytest.raises(ConfigError, match=words):
            AugmentConfig.parse(wrong)
    with pytest.raises(ConfigError, match="from_size=16 with padding=3 is below image_size=24"):
        needs(AugmentConfig(crop="shift", from_size=16, padding=3), 24)
    assert needs(None, 24) == needs(AugmentConfig(crop="resized"), 24) == 24
    assert needs(AugmentConfig(crop="resized", from_size=48), 24) == 48
