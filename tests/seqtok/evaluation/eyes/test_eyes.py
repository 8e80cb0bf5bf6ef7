"""Eyes: they learn to name labels, know nothing of shuffled ones, and are kept with what they were trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipelines.samples import ImageTextBatch
from seqtok.evaluation.eyes.labels import label_truth, levels_right
from seqtok.evaluation.eyes.training import EyeConfig, KeptEyeConfig, eye_id, load_or_train_eye, train_eye
from seqtok_core.foundation.errors import DataError
from tests.seqtok.evaluation.toy import LENGTH, LosslessTokenizer

CLASSES = {"color": 3, "side": 2}
SMALL = KeptEyeConfig(images=1600, batch=32, width=8, lr=4e-3, classes=CLASSES)
LEVELS = {"kind": ("color",), "fine": ("color", "side")}


def pictures(count: int, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """16 x 16: red, green or blue, bright above or below."""
    draw = torch.Generator().manual_seed(seed)
    color, side = (torch.randint(n, (count,), generator=draw) for n in (3, 2))
    images = torch.randint(0, 60, (count, 3, 16, 16), generator=draw)
    for row in range(count):
        images[row, color[row], 8 * int(side[row]) : 8 + 8 * int(side[row])] += 180
    return images.to(torch.uint8), {"color": color, "side": side}


def batch(count: int, seed: int = 0) -> ImageTextBatch:
    images, labels = pictures(count, seed)
    none = torch.zeros(count, 1, dtype=torch.int64)
    return ImageTextBatch(
        images=images,
        text_ids=none[..., None],
        level_mask=none.bool(),
        caption_ids=none - 1,
        epoch=none[:, 0],
        index=none[:, 0],
        keys=[str(row) for row in range(count)],
        labels=labels,
        captions=[("a picture",)] * count,
    )


def share(read: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float((read[name] == labels[name]).float().mean()) for name in labels}


def test_it_learns_to_name_what_is_there():
    images, labels = pictures(600)
    unseen, its = pictures(200, seed=1)
    eye = train_eye(images, labels, SMALL)
    assert min(share(eye.read(unseen), its).values()) > 0.95
    assert eye_id(eye) == eye_id(train_eye(images, labels, SMALL))


def test_shuffled_labels_give_chance():
    images, labels = pictures(600)
    unseen, its = pictures(400, seed=1)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(3))
    found = share(train_eye(images, labels, SMALL).read(unseen), {name: own[order] for name, own in its.items()})
    assert found["color"] == pytest.approx(1 / 3, abs=0.08)
    assert found["side"] == pytest.approx(1 / 2, abs=0.08)


def test_it_is_kept_with_its_settings(tmp_path: Path):
    asked = []

    def read() -> ImageTextBatch:
        asked.append(1)
        return batch(64)

    quick = EyeConfig(images=64, batch=32, width=8)
    first = load_or_train_eye(tmp_path / "eye", quick, CLASSES, read)
    assert eye_id(load_or_train_eye(tmp_path / "eye", quick, CLASSES, read)) == eye_id(first)
    assert len(asked) == 1
    load_or_train_eye(tmp_path / "eye", quick.model_copy(update={"seed": 1}), CLASSES, read)
    assert len(asked) == 2


def test_without_labels_there_is_nothing_to_learn(tmp_path: Path):
    with pytest.raises(DataError, match="no labels of two classes"):
        load_or_train_eye(tmp_path / "eye", EyeConfig(), {"color": 1}, lambda: batch(8))


def test_a_picture_without_a_label_does_not_count():
    labels = {"color": torch.tensor([0, 1, -1]), "side": torch.tensor([0, 0, 1])}
    read = {"color": torch.tensor([0, 2, 2]), "side": torch.tensor([0, 0, 1])}
    right = levels_right(read, labels, LEVELS)
    assert right["kind"].tolist()[:2] == [1.0, 0.0]
    assert right["kind"].isnan().tolist() == [False, False, True]
    assert right["fine"].tolist() == [1.0, 0.5, 1.0]
    assert right["everything"].tolist() == [1.0, 0.0, 1.0]


class KnowingEye:
    """Reads the labels off pictures that it was shown; of any other picture class 2 and side 0."""

    def __init__(self, held_out: ImageTextBatch) -> None:
        self.known = {picture.numpy().tobytes(): row for row, picture in enumerate(held_out.images)}
        self.labels = held_out.labels

    def read(self, shown: torch.Tensor) -> dict[str, torch.Tensor]:
        rows = [self.known.get(picture.contiguous().numpy().tobytes(), -1) for picture in shown]
        other = {"color": 2, "side": 0}
        return {
            name: torch.tensor([int(own[row]) if row >= 0 else other[name] for row in rows])
            for name, own in self.labels.items()
        }


def test_drawings_of_the_picture_are_true_and_those_of_another_are_chance():
    held_out = replace(batch(60), images=batch(60).images.contiguous())
    tokenizer: Any = LosslessTokenizer()
    eye: Any = KnowingEye(held_out)
    first_rows = {picture[:, :4].numpy().tobytes(): picture for picture in held_out.images}

    def drawer(shift: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
        def draw(latents: torch.Tensor, seed: int) -> torch.Tensor:
            padded = torch.cat([latents, torch.zeros(len(latents), LENGTH - latents.shape[1], latents.shape[2])], 1)
            rows = tokenizer.decode(padded, num_tokens=latents.shape[1]).add(1).mul(127.5).round().byte()[:, :, :4]
            found = [first_rows[row.contiguous().numpy().tobytes()] for row in rows]
            return torch.stack(found).roll(shift, 0)

        return draw

    true = label_truth(tokenizer, drawer(0), held_out, eye, LEVELS, seeds=2)["prefix_truth"]["levels"]
    other = label_truth(tokenizer, drawer(7), held_out, eye, LEVELS, seeds=2)["prefix_truth"]["levels"]
    for level in LEVELS:
        assert set(true[level]["value"].values()) == {1.0}
        assert true[level]["ceiling"] == 1.0
        assert abs(other[level]["value"]["1"] - true[level]["chance"]["1"]) < 0.15
