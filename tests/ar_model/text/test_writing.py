"""Captions: the cache changes nothing, what is written is scored as it was written, beams find the likeliest."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from einops import rearrange
from torch import Tensor

from ar_model import SeqGenerator
from ar_model.text.writing import CaptionConfig, WordModel, Written, log_probs, write
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.attention import attend
from seqtok_core.layers.blocks import causal_mask
from seqtok_core.layers.choice import nucleus
from seqtok_core.layers.randomness import Draws
from seqtok_core.layers.rope import apply_rope, rope_table
from tests.ar_model.toy import CAPTIONS, DIM, LENGTH, random_latents, toy_generator, words

LIMIT = 7


def writing_generator(writer: str = "shared", **sequence: object) -> SeqGenerator:
    return toy_generator(writer=writer, sequence={"caption_levels": 2, "caption_prefixes": 0.5, **sequence})


def logits_anew(model: SeqGenerator, z: Tensor, ids: list[int], level: int) -> Tensor:
    """The definition: z (k, D) standardised, the words so far -> (V,), the whole sequence read anew. With weights of
    its own the writer's slots go through every layer beside the image's, whose states do not depend on them."""
    backbone, writing, length = model.backbone, model.backbone.writing, len(z)
    end = writing.embed_text(torch.tensor([[EOI]])) + model.sequence.level_in.weight[level]
    image = torch.cat([backbone.embed_text(torch.tensor([[BOS, BOI]])), backbone.embed_latents(z[None])], 1)
    words = torch.cat([end, writing.embed_text(torch.tensor([ids], dtype=torch.int64))], 1)
    positions = torch.cat([torch.arange(-1, length + 1), LENGTH + 1 + torch.arange(1 + len(ids))])
    rope, parts = rope_table(positions[:, None], backbone.head_dim), [image, words]
    for block, other in zip(backbone.blocks, writing.blocks, strict=True):
        qkv = [b.attention.qkv(b.norm_attention(x)) for b, x in zip((block, other), parts, strict=True)]
        q, k, v = rearrange(torch.cat(qkv, 1), "b n (s h c) -> s b h n c", s=3, h=backbone.heads)
        mixed = attend(apply_rope(q, rope), apply_rope(k, rope), v, causal_mask(len(positions)))
        mixed = rearrange(mixed, "b h n c -> b n (h c)").split([image.shape[1], words.shape[1]], 1)
        parts = [x + b.attention.out(m) for b, x, m in zip((block, other), parts, mixed, strict=True)]
        parts = [x + b.mlp(b.norm_mlp(x)) for b, x in zip((block, other), parts, strict=True)]
    return writing.text_logits(writing.norm_out(parts[1])[0, -1])


def written(model: SeqGenerator, z: Tensor, level: int = 1, limit: int = LIMIT, **config: object) -> list[Written]:
    rows = torch.arange(len(z))
    writer = model.sequence.writer(model.backbone, z, level, LENGTH, limit)
    return write(writer, CaptionConfig.parse(config), Draws(0, torch.zeros_like(rows), rows), limit)


@torch.no_grad()
@pytest.mark.parametrize("known", [2, LENGTH])
@pytest.mark.parametrize(("level", "writer"), [(0, "shared"), (1, "shared"), (1, "own")])
def test_the_likeliest_words_are_those_of_the_definition(known: int, level: int, writer: str) -> None:
    model, z = writing_generator(writer), random_latents(3)[:, :known]
    for row, caption in enumerate(written(model, z, level)):
        ids: list[int] = []
        total = 0.0
        while len(ids) < LIMIT:
            log_p = log_probs(logits_anew(model, z[row], ids, level)[None])[0]
            total += float(log_p.max())
            if int(log_p.argmax()) == EOS:
                break
            ids.append(int(log_p.argmax()))
        assert caption.ids == ids
        assert caption.log_prob == pytest.approx(total, abs=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("writer", ["shared", "own"])
def test_a_score_is_the_sum_of_what_each_word_had(writer: str) -> None:
    model, latents = writing_generator(writer), random_latents(3)
    z = model.spec.normalise(latents)
    for known, level in ((LENGTH, 1), (3, 0)):
        scores = model.score_captions(latents[:, :known], CAPTIONS, level=level, batch=5)
        assert scores.shape == (3, len(CAPTIONS))
        for row, column in product(range(3), range(len(CAPTIONS))):
            ids = [*words().encode(CAPTIONS[column]), EOS]
            each = [logits_anew(model, z[row, :known], ids[:i], level).log_softmax(-1)[ids[i]] for i in range(len(ids))]
            assert float(scores[row, column]) == pytest.approx(float(sum(each)), abs=2e-3)


@torch.no_grad()
def test_wide_beams_find_the_likeliest_of_all_captions() -> None:
    """Of at most two words over a small alphabet, every caption tried."""
    model, z = writing_generator(), random_latents(2)
    allowed = list(range(10, 16))
    barred = torch.full((words().vocab_size,), -1e4)
    barred[[EOS, *allowed]] = 0.0
    model_words = model.sequence.writer(model.backbone, z, 1, LENGTH, 2)
    few = WordModel(model_words.first + barred, lambda parents, ids: model_words.next(parents, ids) + barred)
    found = write(few, CaptionConfig(beams=60, length_penalty=0.0), Draws.alike(0, 2), 3)
    for row, caption in enumerate(found):
        best = -float("inf")
        for ids in [[], *[[a] for a in allowed], *map(list, product(allowed, allowed))]:
            laws = [(logits_anew(model, z[row], ids[:i], 1) + barred).log_softmax(-1) for i in range(len(ids) + 1)]
            best = max(best, sum(float(law[word]) for law, word in zip(laws, [*ids, EOS], strict=True)))
        assert caption.log_prob == pytest.approx(best, abs=1e-3)


def table(rows: list[list[float]]) -> WordModel:
    """The same law of the next word after every word: rows (B, V) of probabilities, of EOS the fourth."""
    logits = torch.full((len(rows), 16), -30.0)
    logits[:, [EOS, 10, 11, 12]] = torch.tensor(rows).log()
    return WordModel(logits, lambda parents, words: logits[:1].expand(len(words), -1))


def test_the_likeliest_word_is_taken_where_the_end_is_nearly_as_likely() -> None:
    (one,) = write(table([[0.4, 0.5, 0.05, 0.05]]), CaptionConfig(), Draws.alike(0, 1), 5)
    assert one.ids == [10] * 5
    (two,) = write(table([[0.4, 0.5, 0.05, 0.05]]), CaptionConfig(beams=2, length_penalty=0.0), Draws.alike(0, 1), 5)
    assert two.ids == []
    assert two.log_prob == pytest.approx(math.log(0.4), abs=1e-4)
    (long,) = write(table([[0.4, 0.5, 0.05, 0.05]]), CaptionConfig(beams=2, length_penalty=2.0), Draws.alike(0, 1), 5)
    assert long.ids == [10]


def test_what_no_caption_holds_is_never_chosen() -> None:
    log_p = log_probs(torch.zeros(2, 16))
    assert (log_p == -torch.inf).nonzero()[:, 1].tolist() == [PAD, BOS, BOI, EOI] * 2
    assert float(log_p[0, EOS].exp()) == pytest.approx(1 / 16), "the rest keeps the probability of training"


def test_more_beams_are_no_less_likely_and_long_captions_can_be_favoured() -> None:
    model, z = writing_generator(), random_latents(16)
    one, four = (written(model, z, beams=n, length_penalty=0.0, limit=20) for n in (1, 4))
    ended = [i for i in range(16) if len(one[i].ids) < 20 and len(four[i].ids) < 20]
    assert sum(four[i].log_prob >= one[i].log_prob - 1e-4 for i in ended) >= 0.7 * len(ended)
    short, long = (written(model, z, beams=4, length_penalty=p, limit=20) for p in (0.0, 3.0))
    assert sum(len(w.ids) for w in long) >= sum(len(w.ids) for w in short)


@pytest.mark.parametrize("config", [{}, {"beams": 3}, {"temperature": 1.0, "top_p": 0.9}])
def test_a_caption_does_not_depend_on_its_neighbours(config: dict[str, object]) -> None:
    model, latents = writing_generator(), random_latents(4)
    together = model.caption(latents, seed=1, **config)
    assert together == [model.caption(latents[i : i + 1], seed=1, **config)[0] for i in range(4)]
    assert together == model.caption(latents, seed=1, batch=3, **config)
    assert len(set(together)) > 1, "pictures must matter, or the law holds trivially"
    assert all(isinstance(caption, str) for caption in together)


def test_drawn_captions_follow_their_seed() -> None:
    model, latents = writing_generator(), random_latents(1).repeat(3, 1, 1)
    drawn = model.caption(latents, temperature=1.0)
    assert len(set(drawn)) == 3, "the same picture thrice has three captions"
    assert drawn == model.caption(latents, temperature=1.0)
    assert drawn != model.caption(latents, temperature=1.0, seed=1)
    greedy = model.caption(latents)
    assert len(set(greedy)) == 1


def test_words_are_drawn_from_the_likeliest_that_have_the_share() -> None:
    log_p = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert nucleus(log_p, 1.0, 0.7).isfinite().tolist() == [[True, True, False, False]]
    assert nucleus(log_p, 1.0, 1.0).isfinite().all()
    assert nucleus(log_p, 1.0, 0.1).isfinite().tolist() == [[True, False, False, False]]
    flat = nucleus(log_p, 2.0, 1.0).exp()
    torch.testing.assert_close(flat, log_p.exp().sqrt() / log_p.exp().sqrt().sum())


def test_words_are_drawn_at_their_rates_and_special_ids_never() -> None:
    model = writing_generator()
    z = random_latents(1).repeat(600, 1, 1)
    drawn = written(model, z, temperature=1.0, limit=1)
    log_p = log_probs(model.sequence.writer(model.backbone, z[:1], 1, LENGTH, 1).first)[0]
    assert not any(set(w.ids) & {PAD, BOS, EOS, BOI, EOI} for w in drawn)
    likely = int(log_p.argmax())
    share = sum((w.ids or [EOS]) == [likely] for w in drawn) / 600
    allowed = float(log_p.exp().sum())
    assert share == pytest.approx(float(log_p.exp()[likely]) / allowed, abs=0.06)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["next_token", "full_image", "scales"])
def test_guidance_holds_the_picture_against_none(kind: str) -> None:
    prefixes = {} if kind == "scales" else {"caption_prefixes": 0.5}
    sequence = {"kind": kind, "caption_levels": 2, "caption_dropout": 0.1, **prefixes}
    if kind == "scales":
        sequence["groups"] = [1, 2, 3]
    model, z = toy_generator(sequence=sequence), random_latents(3)
    asked = (model.backbone, z, 1, LENGTH, LIMIT)
    told = model.sequence.writer(*asked)
    blind = model.sequence.writer(model.backbone, z[:, :0], 1, LENGTH, LIMIT)
    both = model.sequence.guided_writer(*asked, 2.0)
    every, said = torch.arange(3), torch.tensor([11, 11, 11])
    steps = [(w.first, w.next(every, said)) for w in (told, blind, both)]
    for one, other, mixed in zip(*steps, strict=True):
        torch.testing.assert_close(mixed, 2 * one.log_softmax(-1) - other.log_softmax(-1))
        assert (other - other[:1]).abs().max() < 1e-4, "without a picture all are alike"
        assert (one - one[:1]).abs().max() > 0.1, "pictures must matter, or the law holds trivially"
    assert model.caption(random_latents(3), guidance=1.0) == model.caption(random_latents(3))
    assert model.caption(random_latents(3), guidance=2.0, beams=2)
    with pytest.raises(ConfigError, match="has not learnt to write without a picture"):
        writing_generator().caption(random_latents(1), guidance=2.0)


def test_what_cannot_be_written_is_said() -> None:
    model = writing_generator()
    for latents in (
        torch.zeros(2, LENGTH + 1, DIM),
        torch.zeros(2, 0, DIM),
        torch.zeros(2, 1, DIM + 1),
        torch.zeros(2),
    ):
        with pytest.raises(ConfigError, match="are read"):
            model.caption(latents)
    with pytest.raises(ConfigError, match=r"level=2: levels .* 0 \(coarse\) to 1 \(fine\)"):
        model.caption(random_latents(1), level=2)
    with pytest.raises(ConfigError, match="level=blurry"):
        model.caption(random_latents(1), level="blurry")  # type: ignore[arg-type]
    assert model.caption(random_latents(1), level="coarse") == model.caption(random_latents(1), level=0)
    with pytest.raises(ConfigError, match="beams=2 look for the likeliest"):
        model.caption(random_latents(1), beams=2, temperature=1.0)
    with pytest.raises(ConfigError, match="set temperature above 0"):
        model.caption(random_latents(1), top_p=0.9)
    with pytest.raises(ConfigError, match="unknown key beam; did you mean beams"):
        model.caption(random_latents(1), beam=2)
    with pytest.raises(ConfigError, match=r"3 tokens: this model writes from all 6"):
        toy_generator().caption(random_latents(1)[:, :3])
    with pytest.raises(ConfigError, match="none: it was trained without caption_levels"):
        toy_generator().caption(random_latents(1), level="fine")
    torch.nn.init.zeros_(model.backbone.text_out.weight)
    with pytest.raises(ConfigError, match="has not learnt to write"):
        model.score_captions(random_latents(1), CAPTIONS)
    assert writing_generator().caption(torch.zeros(0, LENGTH, DIM)) == []
    assert writing_generator().score_captions(torch.zeros(0, LENGTH, DIM), CAPTIONS).shape == (0, 4)
