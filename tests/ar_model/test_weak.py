"""Guidance by a weaker model: at scale 0 that one draws, at 1 this one, and by itself nothing moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ar_model import SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from seqtok_core.foundation.errors import ConfigError, MismatchError
from tests.ar_model.toy import LENGTH, generator_config, latent_spec, random_latents, toy_generator

PROMPTS = ["a red circle", "a blue square above a red circle", ""]
SOLVED = {"flow": {"steps": 3}}


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half as wide, and of other weights."""
    folder = tmp_path_factory.mktemp("weak")
    head = {"kind": "flow", "width": 16, "depth": 1, "repeats": 2}
    toy_generator(seed=5, width=16, depth=1, head=head).save_pretrained(folder)
    return folder


def test_at_scale_zero_the_weaker_model_draws(weak: Path) -> None:
    drawn = toy_generator().sample(PROMPTS, guidance=0.0, weak=str(weak), **SOLVED)
    alone = SeqGenerator.from_pretrained(weak).sample(PROMPTS, guidance=1.0, **SOLVED)
    torch.testing.assert_close(drawn, alone)


@pytest.mark.parametrize("known", [1, LENGTH - 1])
def test_it_goes_on_from_kept_tokens_too(known: int, weak: Path) -> None:
    latents = random_latents(3)[:, :known]
    drawn = toy_generator().complete(latents, PROMPTS, guidance=0.0, weak=str(weak), **SOLVED)
    alone = SeqGenerator.from_pretrained(weak).complete(latents, PROMPTS, guidance=1.0, **SOLVED)
    torch.testing.assert_close(drawn, alone)


def test_one_step_goes_as_far_again_as_both_differ(weak: Path) -> None:
    """The first token in one step of Euler's: linear in the scale."""
    one = {"flow": {"steps": 1, "solver": "euler"}, "num_tokens": 1}
    drawn = [toy_generator().sample(PROMPTS, guidance=g, weak=str(weak), **one) for g in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(drawn[2] - drawn[1], drawn[1] - drawn[0])
    assert not torch.allclose(drawn[1], drawn[0])


def test_by_itself_nothing_moves(tmp_path: Path) -> None:
    model = toy_generator()
    model.save_pretrained(tmp_path)
    plain = model.sample(PROMPTS, guidance=1.0, **SOLVED)
    torch.testing.assert_close(model.sample(PROMPTS, guidance=3.0, weak=str(tmp_path), **SOLVED), plain)


def test_outside_its_times_it_is_not_asked(weak: Path) -> None:
    model, never = toy_generator(), {"flow": {"steps": 3, "guided_from": 0.99}}
    plain = model.sample(PROMPTS, guidance=1.0, **SOLVED)
    torch.testing.assert_close(model.sample(PROMPTS, guidance=3.0, weak=str(weak), **never), plain)


def test_without_prompts_it_guides_what_has_learnt_no_other_guidance(weak: Path) -> None:
    model, latents = toy_generator(), random_latents(2)[:, :2]
    free = model.complete(latents, guidance=3.0, **SOLVED)
    assert not torch.allclose(model.complete(latents, guidance=3.0, weak=str(weak), **SOLVED), free)
    torch.testing.assert_close(model.complete(latents, guidance=1.0, **SOLVED), free)


def test_a_model_that_does_not_fit_is_named(tmp_path: Path) -> None:
    words = CaptionTokenizer.train(["quite other words, of nothing", "and of no picture"], None, 300)
    copies = generator_config(sequence={"kind": "noisy_copies"})
    others = {
        "headless": (copies, latent_spec(), toy_generator().captions, ConfigError, "for next_token and a flow head"),
        "other": (generator_config(), latent_spec("bbbb"), toy_generator().captions, MismatchError, "weaker model"),
        "words": (generator_config(), latent_spec(), words, MismatchError, "another captions model"),
        "head": (generator_config(head={"kind": "mse"}), latent_spec(), toy_generator().captions, ConfigError, "flow"),
    }
    for name, (config, spec, captions, error, message) in others.items():
        SeqGenerator(config, spec, captions).save_pretrained(tmp_path / name)
        with pytest.raises(error, match=message):
            toy_generator().sample(PROMPTS, guidance=2.0, weak=str(tmp_path / name))
