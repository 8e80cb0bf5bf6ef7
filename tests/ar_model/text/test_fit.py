"""Captions held against pictures by drawing: the loss is that of training, and a picture keeps what it is drawn from
best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig, SeqGenerator
from ar_model.fit import Ids, best_captions, drawing_losses
from ar_model.sampling import of_rows
from ar_model.text.prompts import padded
from data_pipelines.captions.tokenizer import CaptionTokenizer
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import CAPTIONS, LENGTH, latent_spec, random_latents, toy_batch, toy_generator

SEQUENCES = [
    {"kind": "next_token"},
    {"kind": "scales", "groups": [1, 2, 3]},
    {"kind": "full_image"},
    {"kind": "noisy_copies"},
]


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: str(sequence["kind"]))
def test_the_loss_of_a_drawing_is_that_of_training(sequence: dict[str, object]) -> None:
    model, latents = toy_generator(sequence=sequence), random_latents(3)
    batch = toy_batch([[caption] for caption in CAPTIONS[:3]], latents)
    objective = GeneratorObjective(model, GeneratorObjectiveConfig(condition_dropout=0.0), latent_spec())
    own = Draws(0, batch.epoch, batch.index)
    losses = drawing_losses(model, model.spec.normalise(latents), own, 2, [0, 1, 2], model.encode_prompts(CAPTIONS[:3]))
    assert sum(losses) / 3 == pytest.approx(float(objective(batch)["loss"].detach()), rel=1e-4)


def test_all_captions_of_a_picture_meet_the_same_noise() -> None:
    model, latents = toy_generator(), random_latents(3)
    scores = model.score_drawings(latents, [*CAPTIONS, CAPTIONS[0]], batch=4)
    assert scores.shape == (3, len(CAPTIONS) + 1)
    torch.testing.assert_close(scores[:, -1], scores[:, 0])
    alone = model.score_drawings(latents[1:2], CAPTIONS[2:3])
    torch.testing.assert_close(alone[0, 0], scores[1, 2])
    assert not torch.allclose(model.score_drawings(latents, CAPTIONS, seed=1), scores[:, :-1])


def losses_of(model: SeqGenerator, latents: Tensor, captions: list[str]) -> Tensor:
    """`captions`: ids as text."""
    z = model.spec.normalise(latents)
    own = of_rows([row.tobytes() for row in z.numpy()], seed=0)
    text = torch.tensor(padded([[int(word) for word in caption.split()] for caption in captions]))
    return torch.tensor(drawing_losses(model, z, own, 9, range(len(z)), text))


@pytest.mark.parametrize("known", [LENGTH, 3])
def test_a_picture_keeps_the_candidate_that_it_is_drawn_from_best(known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer candidates are the first of more: more of them never lead to a caption that it is drawn from worse."""
    model = toy_generator(sequence={"caption_levels": 2, "caption_prefixes": 0.5})
    latents = random_latents(5)[:, :known]
    monkeypatch.setattr(CaptionTokenizer, "decode", lambda self, ids: " ".join(map(str, ids)))
    found = [model.caption(latents, candidates=count, max_tokens=5, batch=2) for count in (1, 2, 4, 8)]
    assert found[0] == model.caption(latents, max_tokens=5)
    assert found[0] != found[-1] == model.caption(latents, candidates=8, max_tokens=5)
    for fewer, more in pairwise(losses_of(model, latents, captions) for captions in found):
        assert bool((more <= fewer + 1e-5).all())
    assert float(losses_of(model, latents, found[-1]).sum()) < float(losses_of(model, latents, found[0]).sum()) - 0.1


def test_each_pair_is_asked_for_once_and_the_earlier_of_equals_is_kept() -> None:
    asked = []

    def losses(rows: Sequence[int], captions: Sequence[Ids]) -> list[float]:
        asked.extend(zip(rows, captions, strict=True))
        return [float(len(caption)) for caption in captions]

    offered = [[(7, 7, 7), (8,), (9,), (8,)], [(7, 7, 7), (8, 8), (7, 7, 7)]]
    assert best_captions(offered, losses) == [(8,), (8, 8)]
    assert asked == [(0, (7, 7, 7)), (0, (8,)), (0, (9,)), (1, (7, 7, 7)), (1, (8, 8))]


def test_random_numbers_belong_to_the_picture() -> None:
    rows = of_rows([b"a", b"b", b"a"], seed=3)
    assert int(rows.index[0]) == int(rows.index[2]) != int(rows.index[1])
    assert rows.epoch.tolist() == [0, 0, 1]
