"""Writing and matching: captions that a prefix owes are written from it, and told from others that are near."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from data_pipelines.captions import tokenizer as special
from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.losses import match
from seq_tokenizer.losses.match import MatchTerm
from seq_tokenizer.text import writer
from seq_tokenizer.text.tower import EOS
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.seq_tokenizer.losses.reached import WRITER, losses_of_training, objective_of, parts_reached
from tests.seq_tokenizer.toy import rows_of, toy_batch, toy_latents, toy_tokenizer

SIZES = {"width": 16, "layers": 1, "heads": 2}
MATCH = {"match": {**SIZES, "weight": 1.0}}
ENCODED = {"encoder", "bottleneck"}


def writing(**settings: Any) -> TokenizerObjective:
    return objective_of(write={"weight": 1.0}, tokenizer={"writer": {**WRITER, **settings}})


def test_each_reaches_the_encoder_and_its_own_network_alone():
    assert parts_reached(writing()) == ENCODED | {"writer"}
    assert parts_reached(objective_of(**MATCH)) == ENCODED | {"match"}  # similarities draw, and learn nothing


def test_without_text_or_a_writer_each_says_so():
    with pytest.raises(ConfigError, match="`match` needs captions"):
        TokenizerObjective(toy_tokenizer(text=False), TokenizerTrainingConfig.parse({"match": SIZES}))
    with pytest.raises(ConfigError, match="give it a `writer`"):
        TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig.parse({"write": {}}))
    with pytest.raises(ConfigError, match="writer: it learns from captions, and this tokenizer has no text"):
        toy_tokenizer(text=False, writer=SIZES)
    with pytest.raises(ConfigError, match="level_starts"):
        toy_tokenizer(writer={**SIZES, "level_starts": [1, 7]})


def test_the_network_sees_the_prefix_and_earlier_words_alone():
    network = writing().tokenizer.writer.network
    ids, level, k = torch.tensor([[7, 8, 9, 10]]), torch.tensor([1]), torch.tensor([2])
    latents = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    before = network(ids, level, latents, k)
    later_word, later_latent, prefix = ids.clone(), latents.clone(), latents.clone()
    later_word[:, 2] = 20
    later_latent[:, 2:] += 1
    prefix[:, 1] += 1
    torch.testing.assert_close(network(later_word, level, latents, k)[:, :3], before[:, :3])
    assert not torch.allclose(network(later_word, level, latents, k)[:, 3:], before[:, 3:])
    assert torch.equal(network(ids, level, later_latent, k), before)
    assert not torch.allclose(network(ids, level, prefix, k)[:, 0], before[:, 0])
    assert not torch.allclose(network(ids, level * 0, latents, k)[:, 0], before[:, 0])


def test_a_match_does_not_depend_on_padding():
    network = objective_of(**MATCH).terms["match"].network
    short, long = torch.tensor([[7, 8]]), torch.tensor([[7, 8, 0, 0, 0]])
    one, latents = torch.tensor([1]), torch.randn(1, 6, 3)
    torch.testing.assert_close(network(long, one, latents, one)[:, 0], network(short, one, latents, one)[:, 0])
    assert not torch.allclose(network(long[:, :1], one, latents, one)[:, 0], network(short, one, latents, one)[:, 0])


def test_nats_are_those_of_each_token_and_of_the_end():
    """Written out: caption by caption, without padding."""
    made, ids, rows = writing().tokenizer.writer, toy_batch(3).text_ids[:, 0], torch.ones(3, dtype=torch.int64)
    asked = (rows, torch.randn(3, 6, 3), rows)
    found, states = made.nats(ids, *asked), made.network(ids, *asked)  # of two words and three of padding
    for row in range(3):
        logits, target = made.vocabulary(states[row, :3]), torch.cat([ids[row, :2], torch.tensor([EOS])])
        torch.testing.assert_close(found[row], F.cross_entropy(logits, target))


def test_the_vocabulary_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    found = []
    for at_once in (2**24, 1000):
        monkeypatch.setattr(writer, "_AT_ONCE", at_once)
        objective = writing()
        loss = objective(toy_batch())["loss"]
        loss.backward()
        found.append([loss.detach(), objective.tokenizer.encoder.queries.grad.clone()])
    torch.testing.assert_close(*found)


def test_a_batch_is_the_mean_of_its_halves_and_who_has_no_caption_does_not_count():
    objective, batch = writing(), toy_batch(8)
    halves = [objective(rows_of(batch, slice(first, first + 4)))["loss"] for first in (0, 4)]
    torch.testing.assert_close(objective(batch)["loss"], torch.stack(halves).mean())
    ids, captions = batch.text_ids.clone(), batch.caption_ids.clone()
    ids[4:], captions[4:] = 0, -1
    torch.testing.assert_close(objective(replace(batch, text_ids=ids, caption_ids=captions))["loss"], halves[0])


@pytest.mark.slow
def test_what_was_learned_is_written():
    """Twelve captions by heart; the whole sequence says its image's own, and an end comes."""
    torch.manual_seed(0)
    objective = writing(width=32, level_starts=[1, 6])
    losses = losses_of_training(objective, 150, 1e-2)
    assert losses[-1] < 0.2 * losses[0]
    batch = toy_batch(16)
    latents = objective.tokenizer.encode(batch.pixels())
    said = objective.tokenizer.write(latents, level=1)
    assert (F.pad(said, (0, 7 - said.shape[1]))[:, :5] == batch.text_ids[:, 1]).float().mean() > 0.9
    assert objective.tokenizer.write(latents[:, :1], level=0).shape[1] <= 7
    assert not torch.isin(said, torch.tensor([special.EOS])).any()


def test_a_prefix_says_the_finest_of_which_it_is_sure():
    tokenizer, latents = writing(level_starts=[1, 3]).tokenizer.eval(), toy_latents(16)
    made = tokenizer.writer
    with torch.no_grad():
        made.vocabulary.weight.mul_(20)  # else no caption is likely
    (coarse, _), (fine, found) = made.write(latents, 0), made.write(latents, 1)
    middle = float(found.median())
    said = tokenizer.write(latents, sure=math.exp(middle - 1e-4))
    for row, text in enumerate(said):
        wanted = fine[row] if found[row] >= middle else coarse[row]
        assert text[text != 0].tolist() == wanted[wanted != 0].tolist()
    rows, whole = torch.ones(16, dtype=torch.int64), torch.full((16,), 6)
    ended = (fine != 0).sum(1) < 7  # a caption as long as the context has no end
    nats = made.nats(fine, rows, latents, whole) * ((fine != 0).sum(1) + 1)
    torch.testing.assert_close(-found[ended], nats[ended])
    assert int(ended.sum()) > 4


def test_the_writer_goes_with_the_model_and_says_what_it_cannot(tmp_path: Path):
    tokenizer = writing().tokenizer.eval()
    tokenizer.save_pretrained(tmp_path / "model")
    again, latents = type(tokenizer).from_pretrained(tmp_path / "model"), toy_latents()
    assert torch.equal(again.write(latents[:, :2], level=1), tokenizer.write(latents[:, :2], level=1))
    for message, asked, level in (
        ("level_starts is null", latents, None),
        ("choose from 0 to 7", latents, 8),
        ("with k from 1 to 6", latents[:, :0], 0),
    ):
        with pytest.raises(ConfigError, match=message):
            again.write(asked, level)
    with pytest.raises(DataError, match="no writer"):
        toy_tokenizer().write(toy_latents())


def test_a_hard_negative_is_near_and_never_an_equal_caption():
    torch.manual_seed(0)
    columns = F.normalize(torch.randn(5, 8), dim=-1)
    ids, u = torch.tensor([0, 0, 1, 2, -1]), (torch.arange(1000) + 0.5) / 1000
    drawn = match._draw(columns[:1].expand(1000, -1), columns, torch.zeros(1000).long(), ids, torch.tensor(3.0), u)
    share = torch.bincount(drawn, minlength=5) / 1000
    expected = (3 * columns[0] @ columns[2:4].T).softmax(0)
    torch.testing.assert_close(share, torch.tensor([0, 0, *expected.tolist(), 0]), atol=2e-3, rtol=0)


def test_in_a_batch_of_equal_captions_only_matches_are_asked():
    objective, batch = objective_of(**MATCH), toy_batch(8)
    same = replace(batch, caption_ids=torch.zeros_like(batch.caption_ids))
    values = objective(same)
    seen: list[torch.Tensor] = []
    term = objective.terms["match"]
    assert isinstance(term, MatchTerm)
    term._mean = lambda scores, truth, counted: (seen.append(counted), MatchTerm._mean(term, scores, truth, counted))[1]
    torch.testing.assert_close(objective(same)["loss"], values["loss"])
    assert int(seen[0].sum()) == 8


@pytest.mark.slow
def test_matching_learns():
    torch.manual_seed(0)
    losses = losses_of_training(objective_of(**MATCH), 90, 1e-2)
    assert losses[-1] < 0.6 < losses[0]


def test_a_pyramid_with_more_levels_than_it_knows_is_named():
    for name, objective in (
        ("match", objective_of(match={**SIZES, "weight": 1.0, "levels": 1})),
        ("writer", writing(levels=1)),
    ):
        with pytest.raises(ConfigError, match=rf"`{name}.levels`=1"):
            objective(toy_batch())
