"""Prompts without words: one token of the picture's own embedding, which nothing foretells and captions may lack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig
from ar_model.sequences.base import Roles
from ar_model.sequences.layout import prompt_block
from ar_model.text.meaning import Meaning
from data_pipelines.captions.tokenizer import BOI, BOS, PAD
from seqtok_core.foundation.errors import ConfigError
from tests.ar_model.toy import DIM, LENGTH, latent_spec, random_latents, toy_batch, toy_generator

PYRAMID = [["a red circle"], ["a blue square above a red circle"], ["a blue square"], []]
ALWAYS = GeneratorObjectiveConfig(rebuild_share=1.0, condition_dropout=0.0, prompt_weight=0.1)


def embed(latents: Tensor) -> Tensor:
    """(B, K, D) -> (B, D)."""
    return F.normalize(latents.mean(1), dim=-1)


def objective(config: GeneratorObjectiveConfig, **changes: object) -> GeneratorObjective:
    generator = toy_generator(**changes)
    return GeneratorObjective(generator, config, latent_spec(), meaning=Meaning(embed, DIM, generator.config.width))


def test_words_say_nothing_where_the_meaning_is_the_prompt() -> None:
    latents, model = random_latents(4), objective(ALWAYS)
    own, others = (model(toy_batch(captions, latents)) for captions in (PYRAMID, [["a blue square"]] * 4))
    torch.testing.assert_close(own["flow_loss"], others["flow_loss"])
    assert own["prompt_loss"] == 0, "no word stands there that could be foretold"


def test_where_the_transformer_itself_denoises_the_meaning_is_a_prompt_too() -> None:
    latents, model = random_latents(4), objective(ALWAYS, sequence={"kind": "noisy_copies"})
    own, others = (model(toy_batch(captions, latents))["loss"] for captions in (PYRAMID, [["a blue square"]] * 4))
    torch.testing.assert_close(own, others)
    own.backward()
    assert model.meaning.word_in.weight.grad.any()


def test_the_meaning_reaches_the_picture_and_is_that_of_its_own_latents() -> None:
    model, batch = objective(ALWAYS), toy_batch(PYRAMID, random_latents(4))
    model(batch)["loss"].backward()
    gradient = model.meaning.word_in.weight.grad
    assert gradient is not None
    assert bool(gradient.any())
    seen: list[Tensor] = []
    model.meaning._embed = lambda latents: (seen.append(latents), embed(latents))[1]
    model(batch)
    torch.testing.assert_close(seen[0], batch.latents)


def test_who_has_a_prompt_of_words_has_them_as_before() -> None:
    batch = toy_batch(PYRAMID, random_latents(4))
    never, hardly, half = (
        objective(ALWAYS.model_copy(update={"rebuild_share": share}))(batch)["loss"] for share in (0.0, 1e-9, 0.5)
    )
    torch.testing.assert_close(never, hardly)
    assert not torch.allclose(never, half)


def test_an_empty_prompt_stays_empty() -> None:
    batch = toy_batch(PYRAMID, random_latents(4))
    empty = {"condition_dropout": 1.0, "prompt_weight": 0.0}
    asked, plain = (ALWAYS.model_copy(update={**empty, "rebuild_share": share}) for share in (1.0, 0.0))
    torch.testing.assert_close(objective(asked)(batch)["loss"], objective(plain)(batch)["loss"])


def test_the_token_stands_before_the_image_and_nowhere_else() -> None:
    backbone = toy_generator().backbone
    text = torch.tensor([[BOI, PAD, PAD], [300, 301, 302]])
    ids, valid = prompt_block(text, torch.tensor([True, True]))
    assert ids[0].tolist() == [PAD, PAD, BOS, BOI, BOI]
    assert valid[0].tolist() == [False, False, True, True, True]
    plain = Roles(torch.tensor([True, True]))
    meant = replace(plain, meant=torch.tensor([True, False]), meaning=torch.randn(2, backbone.token_in.embedding_dim))
    words, told = (roles.embed_prompts(backbone, ids) for roles in (plain, meant))
    differs = (words != told).any(-1)
    assert differs.tolist() == [[False, False, False, True, False], [False] * 5]
    torch.testing.assert_close(told[0, 3], meant.meaning[0])


def test_nothing_of_who_embeds_is_trained_or_saved() -> None:
    model = objective(ALWAYS)
    assert {name for name in model.state_dict() if name.startswith("meaning")} == {"meaning.word_in.weight"}
    assert "meaning.word_in.weight" in model.muon_excluded()
    assert objective(GeneratorObjectiveConfig()).meaning is None, "and where nobody asks there is no such weight"


@pytest.mark.parametrize(
    "changes",
    [{}, {"sequence": {"kind": "scales", "groups": [1, LENGTH - 1]}}],
    ids=["no tokenizer", "another sequence"],
)
def test_what_cannot_be_is_refused(changes: dict[str, object]) -> None:
    generator = toy_generator(**changes)
    meaning = Meaning(embed, DIM, generator.config.width) if changes else None
    with pytest.raises(ConfigError, match="rebuild_share=1: needs a sequence of kind next_token or noisy_copies"):
        GeneratorObjective(generator, ALWAYS, latent_spec(), meaning=meaning)
