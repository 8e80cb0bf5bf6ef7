"""From a tokenizer and two batches to results: every section is there and means what it says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipelines.samples import ImageTextBatch
from seqtok.evaluation.runners.tokenizer import SCENE_LEVELS, evaluate_tokenizer
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.scoring import scene_meaning
from tests.seqtok.evaluation.toy import LENGTH, SIZE, LosslessTokenizer, held_out

PREFIXES = ["1", "2", str(LENGTH)]


class CaptioningTokenizer(LosslessTokenizer):
    """Knows the fitting caption of every picture once it sees the whole sequence; before that, none."""

    def __init__(self, batch: ImageTextBatch, level: int) -> None:
        self.answer = batch.text_ids[:, level, 0]

    def prefix_embeddings(self, latents: Tensor) -> Tensor:
        full = self.encode_text(self.answer[:, None])
        return torch.stack([torch.ones_like(full)] * (LENGTH - 1) + [full], 1)

    def encode_text(self, text_ids: Tensor) -> Tensor:
        return F.one_hot(text_ids[:, 0] % 997, 997).float()


def scene_batch(count: int, seed: int) -> ImageTextBatch:
    scenes = held_out(count, seed)
    numbers: dict[str, int] = {}
    ids = [[numbers.setdefault(scene_meaning(c), len(numbers) + 1) for c in s.captions] for s in scenes]
    return ImageTextBatch(
        keys=[str(i) for i in range(count)],
        index=torch.arange(count),
        epoch=torch.zeros(count, dtype=torch.int64),
        text_ids=torch.tensor(ids)[..., None],
        level_mask=torch.ones(count, 4, dtype=torch.bool),
        caption_ids=torch.tensor(ids),
        labels={name: torch.tensor([s.labels[name] for s in scenes]) for name in ("count", "background")},
        captions=[list(s.captions) for s in scenes],
        images=real_pictures(scenes, SIZE),
    )


TRAIN, TEST = scene_batch(160, 1), scene_batch(80, 2)


def test_every_section_by_level_and_prefix() -> None:
    tokenizer = CaptioningTokenizer(TEST, level=1)
    results = evaluate_tokenizer(tokenizer, TRAIN, TEST, levels=SCENE_LEVELS, meaning=scene_meaning)
    assert list(results["psnr"]) == list(results["ssim"]) == PREFIXES
    assert results["psnr"][str(LENGTH)] == 100.0
    assert results["psnr"]["1"] < results["psnr"]["2"] < 40
    assert list(results["retrieval"]) == list(SCENE_LEVELS)
    assert list(results["probe"]["levels"]) == ["count", "details"]  # the levels that have a label here
    assert results["probe"]["labels"]["background"][str(LENGTH)] > results["probe_chance"]["labels"]["background"]
    found = results["retrieval"]["shapes"]
    assert found[str(LENGTH)]["image_to_caption_r1"] == found[str(LENGTH)]["caption_to_image_r1"] == 1.0
    assert found["1"]["image_to_caption_r1"] < 0.5
    assert results["retrieval_candidates"]["count"]["images"] == len(TEST)
    assert set(results["protocol"]) == {"psnr", "ssim", "probe", "retrieval"}
    assert "160 training pictures" in results["protocol"]["probe"]
    assert all(stage["seconds"] > 0 for stage in results["stages"].values())


def test_without_captions_and_labels_only_reconstruction_is_judged() -> None:
    bare = [dataclasses.replace(b, labels={}, captions=[]) for b in (TRAIN, TEST)]
    results = evaluate_tokenizer(LosslessTokenizer(), bare[0], bare[1])
    assert {"psnr", "ssim"} < set(results)
    assert not {"probe", "retrieval", "retrieval_chance"} & set(results)


def test_an_image_without_a_level_is_not_asked_for_it() -> None:
    mask = TEST.level_mask.clone()
    mask[::2, 3] = False
    short = [list(c)[: 3 if i % 2 == 0 else 4] for i, c in enumerate(TEST.captions)]
    partly = dataclasses.replace(TEST, level_mask=mask, captions=short)
    results = evaluate_tokenizer(CaptioningTokenizer(TEST, 3), TRAIN, dataclasses.replace(partly, labels={}))
    assert results["retrieval"]["level 4"][str(LENGTH)]["caption_to_image_r1"] == 1.0
    assert results["retrieval_candidates"]["level 4"]["images"] == len(TEST) // 2
    assert results["retrieval_candidates"]["level 3"]["images"] == len(TEST)


@pytest.mark.parametrize("text", [None, object()])
def test_a_tokenizer_without_a_text_tower_is_not_asked_for_captions(text: object) -> None:
    tokenizer = CaptioningTokenizer(TEST, 1)
    tokenizer.text = text  # type: ignore[attr-defined]
    unlabelled = dataclasses.replace(TEST, labels={})
    assert ("retrieval" in evaluate_tokenizer(tokenizer, TRAIN, unlabelled)) == (text is not None)
