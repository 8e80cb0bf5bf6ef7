"""Sampling: the cache changes nothing, a prefix is the beginning of the whole, neighbours do not matter."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from ar_model.sampling import beam_search, of_rows
from ar_model.sequences.layout import attention_mask, prompt_block, slot_positions
from ar_model.text.prompts import prompt_ids
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.flow import guidance_at
from tests.ar_model.toy import CAPTIONS, DIM, LENGTH, random_latents, toy_generator

PROMPTS = ["a red circle", "a blue square above a red circle", "", "one shape"]


@torch.no_grad()
def sample_without_cache(
    model: SeqGenerator, prompts: list[str], config: SampleConfig, seed: int, kept: Tensor | None = None
) -> Tensor:
    """The definition: for every token read the whole sequence anew, with the prompt and what is kept and without."""
    text = model.encode_prompts(prompts)
    own = of_rows([repr([i for i in row if i]).encode() for row in text.tolist()], seed)
    draw = model.head.sampler(config.temperature, config.flow)
    z = torch.zeros(len(prompts), 0, DIM) if kept is None else model.spec.normalise(kept)
    known = z.shape[1]
    for place in range(known, LENGTH):
        states = []
        for keep in (True, False):
            ids, valid = prompt_block(text, torch.full((len(prompts),), keep))
            untold = (torch.arange(z.shape[1]) < known).expand(z.shape[:2]) if not keep else None
            x = torch.cat([model.backbone.embed_text(ids), model.backbone.embed_latents(z, 0, untold)], 1)
            positions = slot_positions(ids.shape[1], x.shape[1])
            mask = attention_mask(torch.cat([valid, valid.new_ones(z.shape[:2])], 1), positions)
            states.append(model.backbone(x, positions, mask)[:, -1])
        scale = guidance_at(place, LENGTH, config.guidance, config.schedule)
        z = torch.cat([z, draw(*states, scale, own, place)[:, None]], 1)
    return model.spec.denormalise(z)


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize("solver", ["euler", "heun", "adams_bashforth"])
def test_cached_sampling_is_the_definition(schedule: str, solver: str) -> None:
    model = toy_generator()
    config = SampleConfig().changed(
        guidance=2.5, schedule=schedule, temperature=0.9, flow={"solver": solver, "steps": 4}
    )
    expected = sample_without_cache(model, PROMPTS, config, seed=5)
    got = model.sample(PROMPTS, config, seed=5)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert (got[0] - got[1]).abs().max() > 0.1, "prompts must matter, or the law holds trivially"


def test_a_prefix_is_the_beginning_of_the_whole() -> None:
    model = toy_generator()
    for schedule in ("constant", "linear"):
        whole = model.sample(PROMPTS, seed=1, flow={"steps": 4}, schedule=schedule)
        part = model.sample(PROMPTS, seed=1, flow={"steps": 4}, schedule=schedule, num_tokens=3)
        assert part.shape == (4, 3, DIM)
        torch.testing.assert_close(part, whole[:, :3], rtol=1e-4, atol=1e-5)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    model = toy_generator()
    together = model.sample(PROMPTS, seed=2, flow={"steps": 4})
    for i, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(
            model.sample([prompt], seed=2, flow={"steps": 4})[0], together[i], rtol=1e-3, atol=1e-4
        )
    in_parts = model.sample(PROMPTS, seed=2, flow={"steps": 4}, batch=3)
    torch.testing.assert_close(in_parts, together, rtol=1e-3, atol=1e-4)


def test_a_prompt_given_twice_gives_two_samples_and_another_seed_a_third() -> None:
    model = toy_generator()
    twice = model.sample(["a red circle"] * 2, seed=0, flow={"steps": 2}, batch=1)
    again = model.sample(["a red circle"], seed=1, flow={"steps": 2})
    assert (twice[0] - twice[1]).abs().max() > 0.1
    assert (twice[0] - again[0]).abs().max() > 0.1
    assert torch.equal(twice, model.sample(["a red circle"] * 2, seed=0, flow={"steps": 2}, batch=1))


def test_guidance_of_one_is_the_conditional_and_of_zero_the_free_law() -> None:
    """The guided path of the code with scale 1 must equal the path that never computes the free law."""
    model, config = toy_generator(), SampleConfig().changed(guidance=1.0, flow={"steps": 4})
    expected = sample_without_cache(model, PROMPTS, config, seed=0)  # blends both with scale 1
    torch.testing.assert_close(model.sample(PROMPTS, guidance=1.0, flow={"steps": 4}), expected, rtol=1e-3, atol=1e-4)
    free = model.sample(PROMPTS, guidance=0.0, flow={"steps": 4})
    zero_noise = model.sample(PROMPTS, guidance=0.0, flow={"steps": 4}, temperature=0.0)
    torch.testing.assert_close(zero_noise[0], zero_noise[1], rtol=1e-4, atol=1e-5)  # prompts are not read
    assert (free[0] - free[1]).abs().max() > 0.01  # their noises differ


def test_wrong_requests_are_explained() -> None:
    model = toy_generator()
    with pytest.raises(ConfigError, match="num_tokens=7: choose from 1 to 6"):
        model.sample(["a red circle"], num_tokens=7)
    with pytest.raises(ConfigError, match="batch=-1: at least one"):
        model.sample(["a red circle"], batch=-1)
    with pytest.raises(ConfigError, match=r"at most 40 are read: 'a red"):
        model.sample(["a red circle " * 40])
    with pytest.raises(ConfigError, match=r"sample: flow\.steps"):
        model.sample(["a red circle"], flow={"steps": 0})
    assert model.sample([]).shape == (0, LENGTH, DIM)


def test_completing_a_prefix_of_a_sample_gives_that_sample() -> None:
    """The rows' noise belongs to prompt and place, so what was drawn once is drawn again from any of its prefixes."""
    model, config = toy_generator(), SampleConfig().changed(guidance=2.5, schedule="linear", flow={"steps": 4})
    whole = model.sample(PROMPTS, config, seed=3)
    for k in (0, 1, 3, LENGTH - 1):
        again = model.complete(whole[:, :k], PROMPTS, config, seed=3)
        torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-4)
        assert torch.equal(again[:, :k], whole[:, :k])
    assert torch.equal(model.complete(whole, PROMPTS, config, seed=3), whole)


def test_a_completion_follows_what_is_kept_and_its_seed() -> None:
    model = toy_generator()
    kept = model.sample(PROMPTS, seed=1, flow={"steps": 4})[:, :2]
    drawn = model.complete(kept, seed=0, flow={"steps": 4})
    assert torch.equal(drawn, model.complete(kept, seed=0, flow={"steps": 4}, guidance=5.0)), "nothing to guide by"
    assert (drawn - model.complete(kept, seed=1, flow={"steps": 4}))[:, 2:].abs().max() > 0.1
    other = model.complete(kept.flip(0), seed=0, flow={"steps": 4}, temperature=0.0)
    same = model.complete(kept, seed=0, flow={"steps": 4}, temperature=0.0)
    assert (other[0, 2:] - same[0, 2:]).abs().max() > 1e-3, "the kept tokens must matter"
    in_parts = model.complete(kept, seed=0, flow={"steps": 4}, batch=3)
    torch.testing.assert_close(in_parts, drawn, rtol=1e-3, atol=1e-4)


def test_guidance_insists_on_what_is_kept() -> None:
    """The free law knows neither prompt nor kept tokens; at guidance 0 they do not matter at all."""
    model = toy_generator(sequence={"prefix_dropout": 0.3})
    config = SampleConfig().changed(guidance=2.5, flow={"steps": 4})
    kept = model.sample(PROMPTS, config, seed=3)[:, :2]
    for prompts in (PROMPTS, None):
        expected = sample_without_cache(model, prompts or [""] * 4, config, seed=5, kept=kept)
        torch.testing.assert_close(model.complete(kept, prompts, config, seed=5), expected, rtol=1e-3, atol=1e-4)
    plain, insisted = (model.complete(kept, seed=5, flow={"steps": 4}, guidance=g) for g in (1.0, 2.5))
    assert (plain - insisted)[:, 2:].abs().max() > 0.05
    free, of_others = (model.complete(z, seed=5, flow={"steps": 4}, guidance=0.0) for z in (kept, kept.flip(0)))
    torch.testing.assert_close(free[:, 2:], of_others[:, 2:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "prompts", "message"),
    [
        ((2, LENGTH + 1, DIM), None, "are completed"),
        ((2, 1, DIM + 1), None, "are completed"),
        ((2, DIM), None, "are completed"),
        ((2, 1, DIM), ["one shape"], "1 prompts for 2 rows"),
    ],
)
def test_what_cannot_be_completed_is_said(shape: tuple[int, ...], prompts: list[str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_generator().complete(torch.zeros(shape), prompts)


def test_of_several_candidates_every_row_keeps_its_best() -> None:
    model, given = toy_generator(), {"seed": 2, "flow": {"steps": 4}}
    alone = model.sample(PROMPTS, **given)
    assert torch.equal(model.sample(PROMPTS, **given, candidates=1), alone)
    seen: list[Tensor] = []

    def first_channel(latents: Tensor) -> Tensor:
        seen.append(latents)
        return latents[:, 0, 0]

    best = model.sample(PROMPTS, **given, candidates=3, score=first_channel)
    assert len(seen) == 3
    torch.testing.assert_close(seen[0], alone)
    assert (seen[1] - seen[2]).abs().max() > 0.1, "each has noise of its own"
    rows = torch.stack([one[:, 0, 0] for one in seen]).argmax(0)
    assert len(rows.unique()) > 1
    assert torch.equal(best, torch.stack(seen)[rows, torch.arange(len(PROMPTS))])
    kept = alone[:, :2]
    drawn = model.complete(kept, **given, candidates=3, score=lambda latents: -latents[:, 2, 0])
    assert (drawn[:, 2, 0] <= model.complete(kept, **given)[:, 2, 0] + 1e-4).all()
    assert torch.equal(drawn[:, :2], kept)


def test_candidates_need_a_score() -> None:
    for candidates, message in ((2, "say by `score`"), (0, "at least one is drawn")):
        with pytest.raises(ConfigError, match=message):
            toy_generator().sample(PROMPTS, candidates=candidates)


def test_prompts_are_read_in_the_words_of_the_captions() -> None:
    """Another case, width or a full stop draws the same picture, and no warning."""
    model, given = toy_generator(), {"seed": 0, "flow": {"steps": 2}}
    plain = model.sample(["a red circle"], **given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prompt in ("A RED Circle", "a red circle.", "\uff41 red circle", " a  red\tcircle!"):
            assert torch.equal(model.sample([prompt], **given), plain), prompt


def test_words_that_no_caption_has_are_named_in_one_warning() -> None:
    model = toy_generator()
    with pytest.warns(UserWarning, match=r"has 'orange', 'zebra', '🦓'; what is drawn") as caught:
        model.sample(["a orange zebra 🦓", "a zebra", "a red circle"], flow={"steps": 2})
    assert len(caught) == 1
    many = " ".join(f"w{i}" for i in range(12))
    with pytest.warns(UserWarning, match="'w7' and 4 more"):
        prompt_ids(model.captions, [many], 200)


@pytest.mark.parametrize("kind", ["next_token", "noisy_copies"])
def test_one_beam_and_one_candidate_a_stage_is_a_plain_sample(kind: str) -> None:
    """What is kept goes on by the same noise and guidance, so a search without choice changes nothing; beginnings that
    training hid for `complete` are no exception."""
    model = toy_generator(sequence={"kind": kind, "prefix_dropout": 0.3})
    given = {"seed": 2, "guidance": 3.0, "flow": {"steps": 4}}
    config, prompts = SampleConfig().changed(guidance=3.0, flow={"steps": 4}), PROMPTS

    def go_on(kept: Tensor | None, length: int, number: int) -> Tensor:
        assert number == 0
        z = None if kept is None else model.spec.normalise(kept)
        return model._draw(prompts, config, 2, length, 256, z, number)

    found = beam_search(go_on, (1, 2, 4, LENGTH), 1, 1, lambda z: z[:, 0, 0])
    torch.testing.assert_close(found, model.sample(prompts, **given), rtol=1e-3, atol=1e-4)


def test_beams_find_better_pictures_than_as_many_candidates() -> None:
    """A score that is a sum over tokens can be climbed token by token."""
    model, given = toy_generator(), {"seed": 2, "flow": {"steps": 4}}

    def score(latents: Tensor) -> Tensor:
        return latents[:, :, 0].sum(1)

    plain, best, beam = (
        model.sample(PROMPTS * 4, **given, **how)
        for how in ({}, {"candidates": 8, "score": score}, {"beams": 4, "candidates": 2, "score": score})
    )
    assert beam.shape == plain.shape
    assert float(score(plain).mean()) < float(score(best).mean()) < float(score(beam).mean())
    again = model.sample(PROMPTS * 4, **given, beams=4, candidates=2, score=score)
    assert torch.equal(again, beam)
    alone = model.sample(PROMPTS[:1], **given, beams=4, candidates=2, score=score)
    torch.testing.assert_close(alone[0], beam[0], rtol=1e-3, atol=1e-4)


def test_a_search_needs_a_score() -> None:
    with pytest.raises(ConfigError, match="beams=4: say by `score`"):
        toy_generator().sample(PROMPTS, beams=4)
    with pytest.raises(ConfigError, match="beams=0, candidates=1"):
        toy_generator().sample(PROMPTS, beams=0, score=lambda z: z[:, 0, 0])


@pytest.mark.parametrize("kind", ["next_token", "noisy_copies", "full_image"])
def test_guidance_can_be_left_to_a_part_of_the_way(kind: str) -> None:
    model, given = toy_generator(sequence={"kind": kind}), {"seed": 2, "guidance": 3.0}

    def sample(start: float, stop: float) -> Tensor:
        return model.sample(PROMPTS, **given, flow={"steps": 4, "guided_from": start, "guided_until": stop})

    plain = model.sample(PROMPTS, seed=2, guidance=1.0, flow={"steps": 4})
    torch.testing.assert_close(sample(0.9, 0.95), plain, rtol=1e-3, atol=1e-4)  # no step lies there
    torch.testing.assert_close(sample(0.0, 1.0), model.sample(PROMPTS, **given, flow={"steps": 4}))
    assert (sample(0.3, 0.8) - plain).abs().max() > 1e-2
    assert (sample(0.3, 0.8) - sample(0.0, 1.0)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["next_token", "noisy_copies", "full_image"])
def test_every_token_can_be_watched(kind: str) -> None:
    model, seen = toy_generator(sequence={"kind": kind}), []
    whole = model.sample(PROMPTS, seed=2, flow={"steps": 3}, on_token=seen.append)
    assert [tuple(z.shape) for z in seen] == [(4, k, DIM) for k in range(1, LENGTH + 1)]
    assert all(torch.equal(z, whole[:, : z.shape[1]]) for z in seen)
    seen.clear()
    completed = model.complete(whole[:, :2], PROMPTS, seed=3, flow={"steps": 3}, on_token=seen.append)
    assert [z.shape[1] for z in seen] == list(range(1, LENGTH + 1))
    assert all(torch.equal(z[:, 2:], completed[:, 2 : z.shape[1]]) for z in seen)


def test_a_text_is_one_prompt_at_every_door() -> None:
    model = toy_generator(sequence={"caption_levels": 0})
    few, kept = {"flow": {"steps": 2}}, model.sample(["a red circle"] * 2, flow={"steps": 2})[:, :2]
    assert torch.equal(model.sample("a red circle", **few), model.sample(["a red circle"], **few))
    assert torch.equal(model.encode_prompts("a red circle"), model.encode_prompts(["a red circle"]))
    every_row = model.complete(kept, ["a red circle"] * 2, **few)
    assert torch.equal(model.complete(kept, "a red circle", **few), every_row)
    whole = model.complete(kept, **few)
    assert torch.equal(model.score_captions(whole, "a red circle"), model.score_captions(whole, ["a red circle"]))


@pytest.mark.parametrize("prompts", [["a red circle", None], [7], [b"a red circle"], [["a red circle"]]])
def test_what_is_no_text_is_no_prompt(prompts: list[object]) -> None:
    with pytest.raises(ConfigError, match="a prompt is a text"):
        toy_generator().sample(prompts)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="None: prompts are a text or a list of texts"):
        toy_generator().sample(None)  # type: ignore[arg-type]


def test_nothing_at_once_and_pictures_without_all_their_tokens_are_refused() -> None:
    model, z = toy_generator(), random_latents(3)
    captioned = model.sample(["a red circle"], flow={"steps": 2})
    for call in (model.caption, model.states):
        with pytest.raises(ConfigError, match="batch=-1"):
            call(captioned, batch=-1)
    for call in (model.score_captions, model.score_drawings):
        with pytest.raises(ConfigError, match="batch=0"):
            call(z, ["a red circle"], batch=0)
        with pytest.raises(ConfigError, match="latents of shape"):
            call(z[0], ["a red circle"])
    with pytest.raises(ConfigError, match=f"with k = {LENGTH} are read"):
        model.score_drawings(z[:, :2], ["a red circle"])


def test_no_pictures_and_no_captions_are_scored_as_nothing() -> None:
    model, z = toy_generator(), random_latents(3)
    assert model.caption(z[:0], candidates=2) == []
    assert model.score_drawings(z[:0], CAPTIONS).shape == (0, len(CAPTIONS))
    assert model.score_drawings(z, []).shape == (3, 0)
    one = model.score_drawings(z.clone().requires_grad_(), "a red circle")
    assert torch.equal(one, model.score_drawings(z, ["a red circle"]))
