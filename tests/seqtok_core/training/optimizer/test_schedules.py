"""Learning rate by images seen, and when something is due."""

from __future__ import annotations

import pytest

from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training import TrainConfig
from seqtok_core.training.optimizer.schedules import crosses, rate_factor


def config(**settings: object) -> TrainConfig:
    return TrainConfig(**{"images": 1000, "batch": 10, "warmup_images": 100, **settings})  # type: ignore[arg-type]


def test_warm_up_is_linear_and_its_first_step_is_not_idle():
    factors = [rate_factor(config(), images) for images in range(0, 100, 10)]
    assert factors == pytest.approx([0.1 * n for n in range(1, 11)])


def test_cosine_ends_at_its_final_fraction():
    assert rate_factor(config(), 100) == 1.0
    assert rate_factor(config(), 550) == pytest.approx(0.05 + 0.95 * 0.5)
    assert rate_factor(config(), 1000) == pytest.approx(0.05)


def test_constant_stays_and_wsd_falls_in_its_last_part_only():
    assert rate_factor(config(schedule="constant"), 990) == 1.0
    wsd = config(schedule="wsd", decay_fraction=0.2, final_lr_fraction=0.0)
    assert [rate_factor(wsd, n) for n in (100, 500, 800)] == [1.0, 1.0, 1.0]
    assert rate_factor(wsd, 900) == pytest.approx(0.5)


def test_the_rate_depends_on_images_and_not_on_the_batch():
    for images in (200, 400, 800):
        assert rate_factor(config(batch=10), images) == rate_factor(config(batch=50), images)


def test_each_multiple_is_crossed_once_whatever_the_batch():
    for batch in (3, 10, 64):
        edges = range(0, 1000, batch)
        assert sum(crosses(100, n, n + batch) for n in edges) == (edges[-1] + batch) // 100
    assert not crosses(None, 0, 1000)


def test_the_batch_must_be_shared_evenly():
    assert config(batch=12, micro_batch=3).accumulation(2) == 2
    assert config(batch=12).micro_batch_of(4) == 3
    with pytest.raises(ConfigError, match="5 processes"):
        config(batch=12).micro_batch_of(5)
    with pytest.raises(ConfigError, match="micro_batch=5"):
        TrainConfig.parse({"images": 100, "batch": 12, "micro_batch": 5})
    with pytest.raises(ConfigError, match="warmup_images"):
        TrainConfig.parse({"images": 100, "batch": 10, "warmup_images": 100})
