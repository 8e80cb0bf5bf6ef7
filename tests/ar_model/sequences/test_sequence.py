"""The layout: where text and latents stand, who sees whom, and that padding changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ar_model.sequences import layout as sequence
from ar_model.sequences.base import Roles, trim
from ar_model.sequences.cache import ReadOnce, StaticCache
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD
from seqtok_core.layers.blocks import causal_mask
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import LENGTH, random_latents, toy_generator

TEXT = torch.tensor([[11, 12, 13, PAD], [21, PAD, PAD, PAD], [31, 32, PAD, PAD]])
ALL = torch.ones(3, dtype=torch.bool)


def hidden(
    text: Tensor, z: Tensor, keep: bool = True, writes: bool = False, told: int | None = None, writer: str = "shared"
) -> Tensor:
    """(B, N, W): hidden states of the toy model over `text` and z in the order of reading: prompt, image, caption."""
    model, rows = toy_generator(writer=writer), torch.ones(len(text), dtype=torch.bool)
    roles = Roles(rows & keep, rows & writes if writes else None)
    if told is not None:
        roles = Roles(rows & keep, rows & writes, told=torch.full((len(text),), told))
    slots = model.sequence.arrange(model.backbone, z, None, text, roles, Draws.alike(0, len(text)))
    first = ReadOnce()
    h = model.backbone(slots.x, slots.positions, slots.mask, first)
    if slots.captions is None:
        return h
    assert slots.captions.slots.rows.tolist()[: len(text)] == list(range(len(text)))
    return torch.cat([h, slots.captions.states(model.backbone, first)[: len(text)]], 1)


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


@pytest.mark.parametrize("writer", ["shared", "own"])
def test_no_slot_sees_a_later_one(writer: str) -> None:
    """By gradient, in both directions at once: where h of a slot depends on what enters at another, that one is not
    later. The last sample has no text."""
    text = torch.cat([TEXT, TEXT.new_zeros(1, 4)])
    z = torch.cat([random_latents(3), random_latents(1, seed=1)]).requires_grad_()
    roles = Roles(torch.tensor([True, False, False, True]), torch.tensor([False, True, True, False]))
    model = toy_generator(writer=writer)
    slots = model.sequence.arrange(model.backbone, z, None, text, roles, Draws.alike(0, len(text)))
    x, first, captions = slots.x.detach().requires_grad_(), ReadOnce(), slots.captions
    assert captions is not None
    h = model.backbone(x, slots.positions, slots.mask, first)
    for slot in range(h.shape[1]):
        grown = torch.autograd.grad(h[:, slot].square().sum(), x, retain_graph=True)[0].abs().amax(-1) > 0
        assert not bool(grown[:, slots.positions > slots.positions[slot]].any())
    assert captions.slots.rows.tolist()[:2] == [1, 2], "those that write"
    words = captions.x.detach().requires_grad_()
    written = replace(captions, x=words).states(model.backbone, first)
    for slot in range(2):  # <eoi> and the one word of the second sample
        asked = written[0, slot].square().sum()
        before, own = torch.autograd.grad(asked, (x, words), retain_graph=True, allow_unused=True)
        assert (own[0].abs().amax(-1) > 0).nonzero()[:, 0].tolist() == list(range(slot + 1))
        if writer == "own":  # it reads the image, as the test of told latents sees, and sends nothing back
            assert before is None
            continue
        reached = before.abs().amax(-1) > 0
        assert reached[1].nonzero()[:, 0].tolist() == [4, 5, *range(6, 6 + LENGTH)], "<bos> <boi> z"
        assert not bool(reached[[0, 2, 3]].any())


def test_both_ways_read_as_plain_sequences() -> None:
    """A prompt before its image, and a caption after its image: each as if it stood alone in the order of reading."""
    z, backbone = random_latents(3), toy_generator().backbone
    both, alone = hidden(TEXT, z), hidden(TEXT, z, keep=False, writes=True)
    front = TEXT.shape[1] + 2
    for row, length in enumerate((TEXT > 0).sum(1).tolist()):
        words, image = TEXT[row : row + 1, :length], backbone.embed_latents(z[row : row + 1])
        edges = [torch.tensor([[i]]) for i in (BOS, BOI, EOI)]
        before = [backbone.embed_text(torch.cat([edges[0], words, edges[1]], 1)), image]
        after = [
            backbone.embed_text(torch.cat(edges[:2], 1)),
            image,
            backbone.embed_text(torch.cat([edges[2], words], 1)),
        ]
        for parts, got in ((before, both[row]), (after, alone[row])):
            x = torch.cat(parts, 1)
            start = length + 2 if parts is before else 2
            expected = backbone(x, sequence.slot_positions(start, x.shape[1]), causal_mask(x.shape[1]))[0]
            if parts is before:
                torch.testing.assert_close(
                    got[1 - LENGTH :], expected[start : start + LENGTH - 1], rtol=1e-4, atol=1e-5
                )
            else:
                got = got[front:][: LENGTH + length + 1]
                torch.testing.assert_close(got, expected[2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("writer", ["shared", "own"])
def test_a_caption_sees_the_latents_that_it_is_told_and_no_other(writer: str) -> None:
    z = random_latents(3)
    changed = z.clone()
    changed[:, 2:] += 5.0
    caption = slice(TEXT.shape[1] + 2 + LENGTH, None)
    few, same = (hidden(TEXT, each, False, True, told=2, writer=writer)[:, caption] for each in (z, changed))
    valid = torch.arange(TEXT.shape[1] + 1) <= (TEXT > 0).sum(1)[:, None]
    torch.testing.assert_close(few[valid], same[valid])
    more = hidden(TEXT, changed, False, True, told=3, writer=writer)[:, caption]
    assert (few - more)[valid].abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("extra", [1, 7])
def test_padding_changes_nothing(extra: int) -> None:
    """The image's hidden states of a prompt do not depend on how far other prompts push it."""
    z = random_latents(3)
    wide = torch.cat([TEXT, TEXT.new_zeros(3, extra)], 1)
    image = TEXT.shape[1] + 2
    torch.testing.assert_close(
        hidden(wide, z)[:, image + extra - 1 :], hidden(TEXT, z)[:, image - 1 :], rtol=1e-4, atol=1e-5
    )
    alone = hidden(TEXT[1:2, :1], z[1:2])[:, -LENGTH:]
    torch.testing.assert_close(alone, hidden(TEXT, z)[1:2, -LENGTH:], rtol=1e-4, atol=1e-5)


def test_padding_sees_itself_alone() -> None:
    mask = sequence.attention_mask(torch.tensor([[False, False, True, True]]), torch.arange(4))[0, 0]
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
