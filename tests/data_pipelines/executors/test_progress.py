"""Where tasks stand: every change is told, what was told does not change, and sums do not depend on the order."""

from __future__ import annotations

import itertools

from data_pipelines.executors.progress import Progress, ProgressCount

FINISHED = [
    {"samples": 10, "built": 10, "dropped": {"no caption": 2, "filtered: small": 1}, "bad": 2},
    {"samples": 10, "built": 0, "dropped": {"no caption": 1}, "bad": 1},
    {"samples": 4, "built": 4},
]


def test_every_change_is_told_from_the_first_moment_on():
    told: list[Progress] = []
    count = ProgressCount(told.append, shards=3, samples=24)
    for done in FINISHED:
        count.begin("a task")
        count.add(**done)
    count.lose("a task")
    assert [(p.shards_begun, p.shards_done, p.samples_done, p.workers_lost) for p in told] == [
        (0, 0, 0, 0),
        (1, 0, 0, 0),
        (1, 1, 10, 0),
        (2, 1, 10, 0),
        (2, 2, 20, 0),
        (3, 2, 20, 0),
        (3, 3, 24, 0),
        (3, 3, 24, 1),
    ]
    assert [dict(p.dropped).get("no caption", 0) for p in told] == [0, 0, 2, 2, 3, 3, 3, 3]
    assert all((p.shards, p.samples) == (3, 24) for p in told)


def test_sums_do_not_depend_on_the_order():
    ends = []
    for order in itertools.permutations(FINISHED):
        told: list[Progress] = []
        count = ProgressCount(told.append, shards=3, samples=24)
        for done in order:
            count.add(**done)
        ends.append(told[-1])
    assert all(end == ends[0] for end in ends)
    assert (ends[0].samples_built, ends[0].bad) == (14, 3)
    assert ends[0].dropped == {"no caption": 3, "filtered: small": 1}


def test_an_unknown_number_of_samples_grows_with_what_was_done():
    told: list[Progress] = []
    count = ProgressCount(told.append, shards=2, samples=0)
    count.add(7, 7)
    count.add(5, 5)
    assert [(p.samples_done, p.samples) for p in told] == [(0, 0), (7, 7), (12, 12)]
