"""The order of samples: every sample once per epoch, equal for all ranks, workers and resumes."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.reading.order import EpochOrder, ResampledOrder, StepPlan
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


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) >= 24),
    st.tuples(st.integers(0, 2**40), st.integers(1, 4)),
    st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3])), min_size=2, max_size=4),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
)
def test_an_epoch_in_pieces_of_other_worlds_is_the_epoch_exactly_once(sizes, seed_window, shapes, pieces):
    """Stopped and continued with other ranks and micro-batches, again and again: no sample lost, none twice."""
    order, total = EpochOrder(sizes, *seed_window), 24
    steps, step, seen = order.samples // total, 0, []
    for piece in range(steps):
        world, micro = shapes[piece % len(shapes)]
        count = min(pieces[piece % len(pieces)], steps - step)
        for rank in range(world):
            plan = StepPlan(total, micro, rank, world)
            parts = islice(plan.micro_batches(order, step), count * total // world // micro)
            seen += [int(n) for epoch, indices in parts for n in indices if epoch == 0]
        step += count
    assert step == steps
    assert sorted(seen) == sorted(order.indices(0, 0, steps * total).tolist())
    assert len(set(seen)) == len(seen) == steps * total


RESAMPLED = st.builds(
    ResampledOrder,
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(0, 2**40),
    st.integers(1, 4),
    st.just(12),
)


@given(RESAMPLED, st.integers(0, 2**33), st.sampled_from([(1, 12), (2, 3), (3, 2), (4, 1)]))
def test_resampled_steps_are_a_function_of_seed_and_step(order, step, shape):
    world, micro = shape
    whole = next(StepPlan(12, 12).micro_batches(order, step))
    parts = [
        indices
        for rank in range(world)
        for _, indices in islice(StepPlan(12, micro, rank, world).micro_batches(order, step), 12 // world // micro)
    ]
    assert np.array_equal(np.concatenate(parts), whole[1])
    assert whole[0] == step
    assert 0 <= whole[1].min() <= whole[1].max() < order.samples


def test_resampled_steps_differ():
    for sizes in ([50], [10] * 20):
        order = ResampledOrder(sizes, 0, 3, 64)
        draws = [order.indices(step, 0, 64).tolist() for step in range(40)]
        assert len({tuple(draw) for draw in draws}) == 40
        assert draws[5] != ResampledOrder(sizes, 1, 3, 64).indices(5, 0, 64).tolist()
    assert ResampledOrder([10] * 20, 0, 3, 64).indices(7, 0, 6).tolist() == RESAMPLED_FIRST, "a run continues tomorrow"


RESAMPLED_FIRST = [116, 102, 37, 108, 31, 114]


@pytest.mark.parametrize("window", [3, 99])
@pytest.mark.parametrize("weights", [None, [1, 1, 0, 4, 0.5, 1, 2]])
def test_samples_are_drawn_in_proportion_to_their_weights(window, weights):
    """Shards of very different sizes; the count of each sample lies within five deviations of what is due."""
    sizes = [40, 1, 9, 20, 20, 5, 5]
    order, steps = ResampledOrder(sizes, 0, window, 50, weights), 20_000
    counts = np.bincount(np.concatenate([order.indices(step, 0, 50) for step in range(steps)]), minlength=100).astype(
        float
    )
    chance = np.repeat(weights or [1.0] * 7, sizes)
    expected = 50 * steps * chance / chance.sum()
    assert (counts[expected == 0] == 0).all()
    shards = np.split(np.arange(100), np.cumsum(sizes)[:-1])
    block = max(1, round(window * np.mean(sizes) / 50)) if window < 7 else 1
    for members in shards:
        due = expected[members].sum()
        deviation = (due * 50 * block / min(window, 50)) ** 0.5 + due**0.5  # draws of a block share their shards
        assert abs(counts[members].sum() - due) <= 5 * deviation
        if due:
            inside = counts[members] / counts[members].sum()
            assert np.abs(inside - 1 / len(members)).max() < 6 * (1 / len(members) / counts[members].sum()) ** 0.5


def test_few_shards_are_open_at_a_time_while_resampling():
    order = ResampledOrder([100] * 50, 0, 4, 20)
    first = np.concatenate([order.indices(step, 0, 20) for step in range(20)]) // 100
    assert len(set(first.tolist())) <= 4
    later = np.concatenate([order.indices(step, 0, 20) for step in range(2000)]) // 100
    assert len(set(later.tolist())) == 50


def test_weights_that_leave_nothing_are_refused():
    for weights in ([0, 0], [1, -1]):
        with pytest.raises(ConfigError, match="weights"):
            ResampledOrder([3, 4], 0, 2, 4, weights)
