"""What makes the sequence ordered: prefix lengths, what each of them owes, and per-sample randomness."""

from __future__ import annotations

import math

import pytest
import torch

from seq_tokenizer.orders.prefix import draw_prefix, keep_prefix, level_starts
from seqtok_core.layers.randomness import Draws


def test_every_prefix_length_is_drawn_and_short_ones_most():
    """P(k) = log((k + 1) / k) / log(K + 1); k = 1 was once never drawn, and its pictures were noise."""
    u = (torch.arange(100_000) + 0.5) / 100_000
    share = torch.bincount(draw_prefix(u, 16), minlength=17)[1:] / len(u)
    expected = torch.tensor([math.log((k + 1) / k) / math.log(17) for k in range(1, 17)])
    torch.testing.assert_close(share, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shortest", [1, 3, 16])
def test_a_level_is_only_asked_of_prefixes_that_owe_it(shortest: int):
    k = draw_prefix((torch.arange(1000) + 0.5) / 1000, 16, shortest)
    assert k.min() == shortest
    assert k.max() == 16


def test_kept_and_absent_tokens():
    x, absent = torch.arange(24.0).reshape(2, 4, 3), torch.full((3,), -1.0)
    out = keep_prefix(x, torch.tensor([1, 4]), absent)
    assert torch.equal(out[0, 0], x[0, 0])
    assert (out[0, 1:] == -1).all()
    assert torch.equal(out[1], x[1])
    assert x.min() == 0  # the caller's tensor is untouched


def test_pyramid_starts():
    """One above K^(l / L), rounded up: powers are exact in whole numbers, 32^(4/5) in floating point is above 16."""
    assert level_starts(16, 4) == (1, 3, 5, 9)
    assert level_starts(32, 5) == (1, 3, 5, 9, 17)
    assert level_starts(64, 6)[-1] == 33
    assert level_starts(1024, 5) == (1, 5, 17, 65, 257)
    assert level_starts(16, 1) == (1,)


@pytest.mark.parametrize(("length", "starts"), [(1, (1, 1, 1, 1)), (2, (1, 2, 2, 2)), (3, (1, 3, 3, 3))])
def test_few_tokens_owe_every_level_within_their_length(length: int, starts: tuple[int, ...]):
    assert level_starts(length, 4) == starts


def test_a_draw_belongs_to_its_sample():
    """The same sample gets the same number alone, in a batch, in another order; other coordinates another one."""
    epoch, index = torch.zeros(50, dtype=torch.int64), torch.arange(50)
    whole = Draws(3, epoch, index).normal("noise", (4, 2))
    assert torch.equal(Draws(3, epoch[7:9], index[7:9]).normal("noise", (4, 2)), whole[7:9])
    assert torch.equal(Draws(3, epoch, index.flip(0)).normal("noise", (4, 2)), whole.flip(0))
    for other in (
        Draws(4, epoch, index).normal("noise", (4, 2)),
        Draws(3, epoch, index).normal("other", (4, 2)),
        Draws(3, epoch + 1, index).normal("noise", (4, 2)),
    ):
        assert not (other == whole).any()


def test_any_seed_will_do():
    epoch, index = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    drawn = [Draws(seed, epoch, index).uniform("u") for seed in (0, -1, 2**43, 2**63, 2**64 + 1)]
    assert len({tuple(u.tolist()) for u in drawn}) == len(drawn)


def test_draws_look_random():
    epoch, index = torch.zeros(20_000, dtype=torch.int64), torch.arange(20_000)
    u = Draws(0, epoch, index).uniform("u", (2,))
    assert u.min() > 0
    assert u.max() < 1
    histogram = torch.histc(u[:, 0], 20, 0, 1) / len(u)
    torch.testing.assert_close(histogram, torch.full((20,), 0.05), atol=0.006, rtol=0)
    n = Draws(0, epoch, index).normal("n", (2,))
    torch.testing.assert_close(n.mean(0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(n.std(0), torch.ones(2), atol=0.02, rtol=0)
    neighbours = torch.corrcoef(torch.stack([n[:-1, 0], n[1:, 0], n[1:, 1]]))
    assert (neighbours - torch.eye(3)).abs().max() < 0.03
