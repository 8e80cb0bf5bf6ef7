"""Where the slots of a document stand: texts and pictures in turns, in one causal sequence.

    <bos> text <boi> z_1 ... z_K <eoi> text <boi> z_1 ... z_K <eoi> text

A document is cut behind each picture: every row is a text, perhaps an empty one, and the picture after it, and each
slot sees those before it in its row and all earlier rows. Positions go on through the rows, from <boi> of the first
one, 0. So a document of a text and a picture is the prompt and its image of next_token, slot for slot, and one of a
picture and a text is the image and its caption: a model that knows pairs goes on from them.

Shapes: B documents of M rows, T text tokens, P = T + 2 text slots, K latents of D channels, n = P + K slots of a row,
N = M n, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.sequences.layout import attention_mask, prompt_block, slot_positions
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD


@dataclass(frozen=True)
class DocumentRows:
    """Documents, cut behind their pictures."""

    text_ids: Tensor  # (B, M, T) int64, content packed to the left
    latents: Tensor  # (B, M, K, D) standardised
    there: Tensor  # (B, M) bool, the rows of a document, one after the other
    picture: Tensor  # (B, M) bool, those with a picture: all, or all but the last
    # (B,) bool, documents whose pictures stand each on its own, told nothing: what guidance compares with
    alone: Tensor


@dataclass(frozen=True)
class DocumentSlots:
    """What the Transformer reads, and which of its states lead to what."""

    x: Tensor  # (B, N, W)
    positions: Tensor  # (B, N) int64
    valid: Tensor  # (B, N) bool, slots that later ones may see
    mask: Tensor  # (B, 1, N, N) bool, who sees whom
    targets: Tensor  # (B, M, P - 1) int64, what each text slot but <boi> leads to; PAD where nothing is asked
    length: int  # K

    def by_row(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """h (B, N, W) -> the states that lead to the texts' `targets`, (B, M, P - 1, W), and to latents,
        (B, M, K, W)."""
        rows = h.unflatten(1, (self.targets.shape[1], -1))
        texts = self.targets.shape[2]
        return rows[:, :, :texts], rows[:, :, texts : texts + self.length]


def document_slots(backbone: Backbone, rows: DocumentRows, noise: Tensor | None = None) -> DocumentSlots:
    """`noise` (B, M, K, D) is added where latents are read."""
    (documents, count, text), length = rows.text_ids.shape, rows.latents.shape[2]
    there, told = rows.there, (rows.there & ~rows.alone[:, None]).flatten()
    opens = there & ((there.cumsum(1) == 1) | rows.alone[:, None])
    ids, valid = prompt_block(rows.text_ids.flatten(0, 1), told)
    ids = torch.where((ids == BOS) & ~opens.flatten()[:, None], EOI, ids)
    picture = (there & rows.picture).flatten()
    valid = valid & there.flatten()[:, None]
    wanted = torch.where(ids[:, 1:] == BOI, torch.where(picture, BOI, EOS)[:, None], ids[:, 1:])
    targets = wanted.where(valid[:, :-1] & told[:, None], PAD)
    z = (rows.latents if noise is None else rows.latents + noise).flatten(0, 1)
    x = torch.cat([backbone.embed_text(ids), backbone.embed_latents(z)], 1)
    valid = torch.cat([valid, picture[:, None].expand(-1, length)], 1)
    local = slot_positions(text + 2, text + 2 + length, x.device)
    positions = (_offsets(rows, length)[..., None] + local).flatten(1)
    valid = valid.view(documents, -1)
    mask = attention_mask(valid, positions)
    row = torch.arange(count, device=x.device).repeat_interleave(text + 2 + length)
    mask = mask & ((row[:, None] == row) | ~rows.alone[:, None, None, None])
    shape = documents, count * (text + 2 + length), -1
    return DocumentSlots(x.view(shape), positions, valid, mask, targets.view(documents, count, -1), length)


def _offsets(rows: DocumentRows, length: int) -> Tensor:
    """(B, M) int64, the position of each row's <boi>: that of the first one is 0, and K, the text and two more stand
    between two of them."""
    there = rows.there
    steps = ((rows.text_ids != PAD).sum(2) + 2 + length) * there
    ends = steps.cumsum(1)
    first = (steps * (there.cumsum(1) == 1)).sum(1, keepdim=True)
    return torch.where(rows.alone[:, None] | ~there, 0, ends - first)
