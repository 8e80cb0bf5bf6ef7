"""The order of samples: every sample once per epoch, equal for all ranks, workers and resumes."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.order import EpochOrder, StepPlan
from seqtok_core.foundation.errors import ConfigError

SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 0)
ORDERS = st.builds(EpochOrder, SIZES, st.integers(0, 2**40), st.integers(1, 4), st.booleans())


@given(ORDERS, st.integers(0, 5))
def test_an_epoch_shows_every_sample_once(order, epoch):
    shown = order.indices(epoch, 0, order.samples)
    assert sorted(shown.tolist()) == list(range(order.samples))


@given(ORDERS, st.integers(0, 5), st.data())
def test_any_piece_of_an_epoch_equals_that_piece_of_the_whole(order, epoch, data):
    start = data.draw(st.integers(0, order.samples))
    stop = data.draw(st.integers(start, order.samples))
    piece = order.indices(epoch, start, stop)
    assert np.array_equal(piece, order.indices(epoch, 0, order.samples)[start:stop])


def test_the_order_is_a_function_of_seed_and_epoch():
    order, again = EpochOrder([50, 50], 7, 2), EpochOrder([50, 50], 7, 2)
    later = order.indices(3, 0, 100)
    order.indices(0, 0, 10)
    assert np.array_equal(order.indices(3, 0, 100), later)
    assert np.array_equal(again.indices(3, 0, 100), later)
    assert not np.array_equal(order.indices(4, 0, 100), later)
    assert not np.array_equal(EpochOrder([50, 50], 8, 2).indices(3, 0, 100), later)
    assert order.indices(0, 0, 10).tolist() == FIRST, "a run of today must continue tomorrow"


FIRST = [20, 78, 25, 15, 71, 94, 62, 28, 4, 67]


def test_samples_are_mixed_within_windows_of_shards():
    """With a window of 2 of 6 shards, 20 positions in a row come from 2 shards, mixed."""
    shown = EpochOrder([10] * 6, 0, 2).indices(0, 0, 60)
    for window in range(3):
        shards = shown[window * 20 : window * 20 + 20] // 10
        assert len(set(shards.tolist())) == 2
        assert len(set(shards[:10].tolist())) == 2


PLANS = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(1, 3))  # micro, world, accumulation


@given(ORDERS, PLANS, st.integers(0, 40))
def test_ranks_together_take_the_batch_of_one_process(order, plan, start):
    micro, world, accumulation = plan
    total = micro * world * accumulation
    if order.samples < total:
        return
    whole = next(StepPlan(total, total).micro_batches(order, start))
    rows = []
    for rank in range(world):
        steps = StepPlan(total, micro, rank, world).micro_batches(order, start)
        parts = list(islice(steps, accumulation))
        assert {epoch for epoch, _ in parts} == {whole[0]}
        rows += [indices for _, indices in parts]
    assert np.array_equal(np.concatenate(rows), whole[1])


@given(ORDERS, PLANS, st.integers(0, 10))
def test_starting_at_a_step_equals_skipping_to_it(order, plan, start):
    micro, world, accumulation = plan
    total = micro * world * accumulation
    if order.samples < total:
        return
    steps = StepPlan(total, micro, world - 1, world)
    skipped = islice(steps.micro_batches(order, 0), start * accumulation, (start + 3) * accumulation)
    for (epoch, indices), (other, same) in zip(skipped, steps.micro_batches(order, start), strict=False):
        assert epoch == other
        assert np.array_equal(indices, same)


def test_the_incomplete_last_batch_of_an_epoch_is_left_out():
    order, plan = EpochOrder([10], 0, 1), StepPlan(4, 4)
    assert plan.steps(order.samples) == 2
    assert [epoch for epoch, _ in islice(plan.micro_batches(order, 0), 5)] == [0, 0, 1, 1, 2]


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match=r"x: 5 samples do not fill a batch of 8"):
        StepPlan(8, 8).check(5, "x")
    with pytest.raises(ConfigError, match="batch=8 is not a multiple of micro_batch=3 x 2"):
        StepPlan(8, 3, 0, 2).check(50, "x")
    with pytest.raises(ConfigError, match="rank below world"):
        StepPlan(8, 4, 2, 2).check(50, "x")
    StepPlan(8, 2, 1, 2).check(8, "x")
