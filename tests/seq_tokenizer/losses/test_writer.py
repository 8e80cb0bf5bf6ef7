"""A prefix writes its caption: causal in the words, blind to latents beyond the prefix, and it learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.losses.write import WriteConfig, WriteTerm
from seq_tokenizer.text.writer import CaptionWriter
from seqtok_core.foundation.errors import ConfigError
from tests.seq_tokenizer.toy import toy_batch, toy_tokenizer

LENGTH, DIM, VOCABULARY = 6, 3, 12


def writer(seed: int = 0) -> CaptionWriter:
    torch.manual_seed(seed)
    model = CaptionWriter(VOCABULARY, 8, LENGTH, DIM, width=16, layers=2, heads=2)
    torch.nn.init.normal_(model.absent)
    return model.eval()


def test_a_word_is_chosen_from_the_words_before_it_and_the_prefix():
    model, latents = writer(), torch.randn(2, LENGTH, DIM)
    prefix, text = torch.tensor([2, 4]), torch.tensor([[2, 7, 8, 9], [2, 6, 6, 10]])
    logits = model(latents, prefix, text)
    later = text.clone()
    later[:, 2:] = 11
    torch.testing.assert_close(model(latents, prefix, later)[:, :2], logits[:, :2])
    beyond = latents.clone()
    beyond[0, 2:], beyond[1, 4:] = 9.0, 9.0
    assert torch.equal(model(beyond, prefix, text), logits)
    within = latents.clone()
    within[:, 1] += 1.0
    assert not torch.allclose(model(within, prefix, text), logits, atol=1e-3)


def test_the_loss_is_the_mean_over_the_words_and_the_end():
    """By hand: <bos> 7 8 must give 7 8 <eos>; padding counts nothing, and no caption is no loss."""
    model, latents, prefix = writer(), torch.randn(2, LENGTH, DIM), torch.tensor([3, 3])
    text = torch.tensor([[7, 8, 0, 0], [0, 0, 0, 0]])
    logits = model(latents[:1], prefix[:1], torch.tensor([[2, 7, 8]]))[0]
    expected = F.cross_entropy(logits, torch.tensor([7, 8, 3]))
    loss = model.loss(latents, prefix, text)
    torch.testing.assert_close(loss[0], expected)
    assert float(loss[1]) == 0


def test_what_was_learnt_is_written():
    """Latents that hold a number get the word of that number from the first token on."""
    model = writer().train()
    latents = torch.eye(DIM)[:, None].expand(DIM, LENGTH, DIM).contiguous()
    text = torch.tensor([[6, 7, 0], [8, 0, 0], [9, 9, 10]])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        loss = model.loss(latents, torch.full((DIM,), 1 + step % LENGTH), text).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(model.eval().greedy(latents, torch.ones(DIM, dtype=torch.int64), 3), text)


def test_the_term_teaches_the_encoder():
    objective = TokenizerObjective(
        toy_tokenizer(), TokenizerTrainingConfig(pixels=None, contrast=None, write=WriteConfig(weight=1.0))
    )
    losses = objective(toy_batch())
    losses["loss"].backward()
    torch.testing.assert_close(losses["loss"].detach(), losses["write_loss"])
    assert objective.tokenizer.encoder.queries.grad.abs().max() > 0
    assert "terms.write.writer.words" in objective.muon_excluded()


def test_each_level_is_written_by_prefixes_that_owe_it(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, int]] = []

    def record(self, latents, prefix, text):
        seen.extend(zip(prefix.tolist(), (text != 0).sum(1).tolist(), strict=True))
        return torch.zeros(len(text))

    monkeypatch.setattr(CaptionWriter, "loss", record)
    config = WriteConfig(level_starts=(1, 4))
    objective = TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig(pixels=None, contrast=None, write=config))
    objective(toy_batch(64))
    coarse = {k for k, words in seen if words == 2}  # of the toy's captions the coarse ones have two words
    fine = {k for k, words in seen if words > 2}
    assert min(coarse) == 1
    assert min(fine) == 4


def test_a_writer_needs_words():
    with pytest.raises(ConfigError, match="needs a text tower"):
        WriteTerm(WriteConfig(), toy_tokenizer(text=False).config)
    term = WriteTerm(WriteConfig(), toy_tokenizer().config)
    with pytest.raises(ConfigError, match="a caption has 9 tokens, the writer takes 7"):
        term._in_few_shapes(torch.full((1, 9), 7))
