"""Whole sets through a tokenizer, and how well a drawing agrees with the prefix it was drawn from."""

from __future__ import annotations

import torch

from seq_tokenizer.prefixes import agreement, decode_all, encode_all
from tests.seq_tokenizer.toy import toy_latents, toy_tokenizer


def test_agreement_is_the_distance_of_the_first_tokens_of_the_picture_drawn():
    tokenizer, latents = toy_tokenizer(), toy_latents(4)
    again = encode_all(tokenizer, decode_all(tokenizer, latents, 6))
    torch.testing.assert_close(agreement(tokenizer, again[:, :2])(latents), torch.zeros(4))
    found = agreement(tokenizer, latents[:, :2])(latents)
    torch.testing.assert_close(found, -(again[:, :2] - latents[:, :2]).square().mean((1, 2)))
    assert (found < 0).all()
