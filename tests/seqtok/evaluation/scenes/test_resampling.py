"""What is kept and what is drawn anew: the original where all is kept, chance where nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.reader import true_reading
from seqtok.evaluation.scenes.resampling import (
    attributes_by_chance,
    attributes_kept,
    kept_tokens,
    labels_by_chance,
    labels_kept,
    noise_tails,
    pixels_kept,
    reading_labels,
    swapped_tails,
)
from tests.seqtok.evaluation.toy import SIZE, held_out

SCENES = held_out(60)
READINGS = [true_reading(scene) for scene in SCENES]
LATENTS = torch.randn(12, 6, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]


@pytest.mark.parametrize("tails", [swapped_tails, noise_tails])
def test_what_is_kept_stays_bit_for_bit_and_nothing_else_does(tails) -> None:
    for kept in range(7):
        redrawn = tails(LATENTS, kept, 3)
        assert torch.equal(redrawn[:, :kept], LATENTS[:, :kept])
        same = (redrawn == LATENTS).all(2).sum(1)
        assert same.tolist() == [kept] * len(LATENTS)
    assert torch.equal(tails(LATENTS, 2, 3), tails(LATENTS, 2, 3))
    assert not torch.equal(noise_tails(LATENTS, 2, 3), noise_tails(LATENTS, 2, 4))


def test_swapped_tails_are_whole_tails_of_others_each_used_once() -> None:
    shifts = set()
    for seed in range(20):
        tails = swapped_tails(LATENTS, 4, seed)[:, 4:]
        owner = (tails[:, None] == LATENTS[None, :, 4:]).all((2, 3)).int().argmax(1)
        assert sorted(owner.tolist()) == list(range(12))
        assert not (owner == torch.arange(12)).any()
        shifts.add(int(owner[0]))
    assert len(shifts) > 5


def test_noise_has_the_size_of_its_place() -> None:
    unit = LATENTS / LATENTS.square().mean(2, keepdim=True).sqrt()
    size = noise_tails(unit, 0, 0).square().mean(2).sqrt()
    torch.testing.assert_close(size, torch.ones(12, 6))
    size = noise_tails(LATENTS, 0, 0).square().mean((0, 2)).sqrt()
    torch.testing.assert_close(size, LATENTS.square().mean((0, 2)).sqrt())


def test_originals_keep_everything_and_others_chance() -> None:
    for kept, chance in (
        (attributes_kept([READINGS, READINGS], SCENES), attributes_by_chance(READINGS, SCENES)),
        (labels_kept([READINGS, READINGS], SCENES), labels_by_chance(READINGS, SCENES)),
    ):
        assert kept.keys() == chance.keys()
        assert set(kept.values()) == {1.0}
        assert max(chance.values()) < 0.5
    others = [*READINGS[1:], READINGS[0]]
    assert attributes_kept([others], SCENES)["everything"] == 0.0
    assert labels_kept([READINGS, others], SCENES)["colors"] == pytest.approx(0.5, abs=0.1)


def test_labels_are_those_of_the_scene_in_whatever_order_shapes_are_seen() -> None:
    for one, first in zip(SCENES, READINGS, strict=True):
        turned = replace(first, objects=first.objects[::-1])
        assert reading_labels(turned) == reading_labels(first)
        for other, second in zip(SCENES, READINGS, strict=True):
            same = {name: reading_labels(first)[name] == reading_labels(second)[name] for name in reading_labels(first)}
            assert same == {name: one.labels[name] == other.labels[name] for name in same}


def test_pixels_of_equal_drawings_do_not_differ_and_of_others_do() -> None:
    pictures = real_pictures(SCENES[:8], SIZE)
    assert pixels_kept(torch.stack([pictures] * 3), pictures) == {"psnr": 100.0, "std": 0.0}
    two = torch.stack([torch.zeros_like(pictures), torch.full_like(pictures, 10)])
    assert pixels_kept(two, pictures)["std"] == pytest.approx(50**0.5)
    assert pixels_kept(torch.stack([pictures, pictures.roll(1, 0)]), pictures)["psnr"] < 60


def test_groups_are_kept_whole() -> None:
    assert kept_tokens(6) == (0, 1, 2, 4, 6)
    assert kept_tokens(21, (1, 4, 16)) == (0, 1, 5, 21)
