"""Characters and bits: bounds that hold whatever a reader says, chance exactly, nothing above what was drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from data_pipelines.glyphs import ALPHABET, CELLS, make_page
from seqtok.evaluation.capacity.reader import characters_of
from seqtok.evaluation.capacity.scoring import (
    capacity_row,
    chance_accuracy,
    character_accuracy,
    character_bits,
    invented_share,
)

LETTERS = len(ALPHABET)


def truth_of(count: int, pages: int = 40, seed: int = 0, letters: int = LETTERS) -> Tensor:
    return characters_of([make_page(seed, i, "test", (count,), letters) for i in range(pages)], letters)


def information(joint: np.ndarray) -> float:
    """Mutual information of a joint law, in bits, by its definition."""
    apart = joint.sum(0, keepdims=True) * joint.sum(1, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum())


@pytest.mark.parametrize("letters", [2, 3, 36, 5000])
def test_bits_go_from_nothing_at_chance_to_all(letters: int) -> None:
    shares = np.linspace(chance_accuracy(letters), 1.0, 50)
    bits = [character_bits(float(share), letters) for share in shares]
    assert bits == sorted(bits)
    assert bits[0] == 0.0
    assert bits[-1] == pytest.approx(math.log2(letters))
    assert max(bits) <= math.log2(letters)
    assert character_bits(0.0, letters) == 0.0


@pytest.mark.parametrize("letters", [2, 7, 36])
def test_bits_are_exact_where_every_mistake_is_as_likely(letters: int) -> None:
    for share in (0.5, 0.8, 0.99):
        joint = np.full((letters, letters), (1 - share) / (letters - 1))
        np.fill_diagonal(joint, share)
        if share > 1 / letters:
            assert character_bits(share, letters) == pytest.approx(information(joint / letters))


@pytest.mark.parametrize("seed", range(20))
def test_bits_are_never_more_than_what_the_readings_tell(seed: int) -> None:
    """Of any reader, one that also says "empty": characters evenly drawn, readings of each by a law of its own."""
    rng = np.random.default_rng(seed)
    letters = int(rng.integers(2, 10))
    readings = rng.dirichlet(np.full(letters + 1, rng.choice([0.1, 1.0])), size=letters)
    readings[np.arange(letters), np.arange(letters)] += rng.choice([0.0, 1.0, 5.0])
    joint = readings / readings.sum(1, keepdims=True) / letters
    accuracy = float(joint[np.arange(letters), np.arange(letters)].sum())
    assert character_bits(accuracy, letters) <= information(joint) + 1e-12


@pytest.mark.parametrize("count", [1, 8, CELLS])
def test_a_reader_without_fault_recovers_what_was_drawn_and_no_more(count: int) -> None:
    truth = truth_of(count)
    row = capacity_row(truth, truth, truth, LETTERS)
    assert row["value"] == row["low"] == row["high"] == row["ceiling"] == row["pages_right"] == 1.0
    assert row["bits"] == pytest.approx(row["bits_drawn"]) == pytest.approx(count * math.log2(36))
    assert row["invented"] == (None if count == CELLS else 0.0)


@pytest.mark.parametrize("count", [1, 8, CELLS])
def test_bits_recovered_are_never_above_bits_drawn(count: int) -> None:
    truth, generator = truth_of(count), torch.Generator().manual_seed(0)
    for wrong in (0.0, 0.1, 0.5, 0.9, 1.0):
        spoiled = torch.rand(truth.shape, generator=generator) < wrong
        read = torch.where(spoiled, torch.randint(LETTERS + 1, truth.shape, generator=generator), truth)
        row = capacity_row(read, truth, truth, LETTERS)
        assert 0 <= row["bits_low"] <= row["bits"] <= row["bits_high"] <= row["bits_drawn"] + 1e-9
        assert row["low"] <= row["value"] <= row["high"]


def test_chance_is_exact() -> None:
    """Every character is right as often as it is drawn: over all that may be named everywhere the mean is 1 / A."""
    truth = truth_of(8, pages=10)
    named = [character_accuracy(torch.full_like(truth, letter), truth, LETTERS) for letter in range(LETTERS)]
    assert float(torch.stack(named).double().mean()) == pytest.approx(chance_accuracy(LETTERS), rel=1e-6)


def test_a_reader_of_other_pages_is_at_chance_and_knows_no_bits() -> None:
    """Full pages, so that the cells of the others are filled as well."""
    truth = truth_of(CELLS, pages=200)
    row = capacity_row(truth.roll(1, 0), truth, truth, LETTERS)
    assert row["low"] - 0.002 <= row["chance"] <= row["high"] + 0.002
    assert row["bits_low"] == pytest.approx(0.0, abs=0.05)
    assert row["bits"] < 0.01 * row["bits_drawn"]


def test_a_character_counts_in_its_own_cell_alone() -> None:
    truth = truth_of(4, pages=1)
    empty = torch.full_like(truth, LETTERS)
    assert character_accuracy(empty, truth, LETTERS).tolist() == [0.0]
    assert invented_share(empty, truth, LETTERS) == 0.0
    moved = torch.where(truth < LETTERS, LETTERS, int(truth.min()))  # the empty cells filled, the others emptied
    assert character_accuracy(moved, truth, LETTERS).tolist() == [0.0]
    assert invented_share(moved, truth, LETTERS) == 1.0
    cells = (truth[0] < LETTERS).nonzero()[:, 0]
    three = truth.clone()
    three[0, cells[0]] = LETTERS
    assert character_accuracy(three, truth, LETTERS).tolist() == [0.75]
    assert capacity_row(three, truth, truth, LETTERS)["pages_right"] == 0.0


def test_an_interval_counts_pages_not_characters() -> None:
    """Pages that are all right or all wrong are as few as they are, however many characters stand on them."""
    few, many = (truth_of(count, pages=30) for count in (1, CELLS))
    wrong = torch.arange(30)[:, None] < 15
    rows = [capacity_row(torch.where(wrong, LETTERS, truth), truth, truth, LETTERS) for truth in (few, many)]
    assert rows[0]["value"] == rows[1]["value"] == 0.5
    assert rows[0]["high"] - rows[0]["low"] == pytest.approx(rows[1]["high"] - rows[1]["low"])
