"""The layout: where text and latents stand, who sees whom, and that padding changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ar_model.cache import StaticCache
from ar_model.sequences import next_token as sequence
from ar_model.sequences.base import trim
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD
from tests.ar_model.toy import LENGTH, random_latents, toy_generator

TEXT = torch.tensor([[11, 12, 13, PAD], [21, PAD, PAD, PAD], [31, 32, PAD, PAD]])
ALL = torch.ones(3, dtype=torch.bool)


def hidden(text: Tensor, z: Tensor, keep: bool = True, writes: bool = False) -> Tensor:
    """(B, P + K (+ T + 1), W): hidden states of the toy model over `text` and z."""
    backbone = toy_generator().backbone
    rows = torch.ones(len(text), dtype=torch.bool)
    prompt, valid = sequence.prompt_block(text, rows & keep)
    parts, seen = (
        [backbone.embed_text(prompt), backbone.embed_latents(z)],
        [valid, valid.new_ones(z.shape[:2])],
    )
    if writes:
        ids, caption_valid, _ = sequence.caption_block(text, rows)
        parts.append(backbone.embed_text(ids))
        seen.append(caption_valid)
    x, mask = torch.cat(parts, 1), sequence.attention_mask(torch.cat(seen, 1))
    return backbone(x, sequence.slot_positions(prompt.shape[1], x.shape[1]), mask)


def test_prompt_is_packed_to_the_right_and_ends_where_the_image_begins() -> None:
    ids, valid = sequence.prompt_block(TEXT, torch.tensor([True, True, False]))
    assert ids.tolist() == [
        [PAD, BOS, 11, 12, 13, BOI],
        [PAD, PAD, PAD, BOS, 21, BOI],
        [PAD, PAD, PAD, PAD, BOS, BOI],
    ]
    assert valid.sum(1).tolist() == [5, 3, 2]
    assert sequence.slot_positions(5, 8).tolist() == [-4, -3, -2, -1, 0, 1, 2, 3]


def test_caption_is_packed_to_the_left_and_its_targets_end_in_eos() -> None:
    ids, valid, targets = sequence.caption_block(TEXT, torch.tensor([True, True, False]))
    assert ids.tolist() == [[EOI, 11, 12, 13, PAD], [EOI, 21, PAD, PAD, PAD], [PAD] * 5]
    assert targets.tolist() == [[11, 12, 13, EOS, PAD], [21, EOS, PAD, PAD, PAD], [PAD] * 5]
    assert torch.equal(valid, targets != PAD)


def test_prompt_targets_are_the_text_and_nothing_else() -> None:
    ids, valid = sequence.prompt_block(TEXT, torch.tensor([True, True, False]))
    assert sequence.prompt_targets(ids, valid).tolist() == [
        [PAD, 11, 12, 13, PAD],
        [PAD, PAD, PAD, 21, PAD],
        [PAD] * 5,
    ]


def test_trim_drops_only_common_padding() -> None:
    assert trim(TEXT).tolist() == TEXT[:, :3].tolist()
    assert trim(TEXT[:0].new_zeros(2, 4)).shape == (2, 1)


def test_no_slot_sees_a_later_one() -> None:
    """Latents from place 3 on change, then the caption: what stands before must not."""
    z, text = random_latents(3), TEXT % 300 + 10 * (TEXT > 0)
    changed = z.clone()
    changed[:, 3:] += 5.0
    before, after = hidden(text, z, writes=True), hidden(text, changed, writes=True)
    image = text.shape[1] + 2
    torch.testing.assert_close(before[:, : image + 3], after[:, : image + 3])
    assert (before[:, image + 3 :] - after[:, image + 3 :]).abs().amax(-1)[0].min() > 1e-3
    other = text.clone()
    other[:, 1:] = torch.where(text[:, 1:] > 0, text[:, 1:] + 1, PAD)
    image_only = slice(0, image + LENGTH + 2)  # <eoi> and the first word stand as before
    a, b = hidden(text, z, keep=False, writes=True), hidden(other, z, keep=False, writes=True)
    torch.testing.assert_close(a[:, image_only], b[:, image_only])
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("extra", [1, 7])
def test_padding_changes_nothing(extra: int) -> None:
    """The image's hidden states of a prompt do not depend on how far other prompts push it."""
    z = random_latents(3)
    wide = torch.cat([TEXT, TEXT.new_zeros(3, extra)], 1)
    image = TEXT.shape[1] + 2
    torch.testing.assert_close(
        hidden(wide, z)[:, image + extra - 1 :], hidden(TEXT, z)[:, image - 1 :], rtol=1e-4, atol=1e-5
    )
    alone = hidden(TEXT[1:2, :1], z[1:2])[:, -LENGTH - 1 :]
    torch.testing.assert_close(alone, hidden(TEXT, z)[1:2, -LENGTH - 1 :], rtol=1e-4, atol=1e-5)


def test_padding_sees_itself_alone() -> None:
    mask = sequence.attention_mask(torch.tensor([[False, False, True, True]]))[0, 0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert bool(torch.isfinite(hidden(TEXT, random_latents(3), keep=False, writes=True)).all())


def test_an_empty_prompt_reads_no_text() -> None:
    z, other = random_latents(3), TEXT.flip(0)
    image = TEXT.shape[1] + 1
    torch.testing.assert_close(hidden(TEXT, z, keep=False)[:, image:], hidden(other, z, keep=False)[:, image:])
    assert (hidden(TEXT, z)[:, image:] - hidden(other, z)[:, image:]).abs().max() > 1e-3


def test_cache_hands_back_everything_and_refuses_more_than_it_holds() -> None:
    cache = StaticCache(1, 2, 1, 3, 4, like=torch.zeros(1))
    keys, values = torch.randn(2, 2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    cache.append(0, keys[:, :, :2], values[:, :, :2])
    got = cache.append(0, keys[:, :, 2:], values[:, :, 2:])
    assert torch.equal(got[0], keys)
    assert torch.equal(got[1], values)
    with pytest.raises(ValueError, match="cannot hold 4"):
        cache.append(0, keys[:, :, :1], values[:, :, :1])
