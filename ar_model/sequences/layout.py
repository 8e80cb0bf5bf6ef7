"""Where slots stand: a prompt in front of the image, and what is written after it as a pass of its own.

    text -> image   <pad> <pad> <bos> text <boi> z_1 ... z_K
    image -> text   <pad> <pad> <pad> <bos> <boi> z_1 ... z_K | <eoi> text <pad>

The second pass goes on from the keys and values of the first, as sampling does, and is made for the rows that write
alone. Positions count from <boi> = 0, z_i is i and <eoi> is K + 1: they do not depend on the padding, and image -> text
starts exactly as a prompt that was left empty. Padding is seen by itself only (with no slot to see, softmax has no
meaning).

Shapes: B rows of which R write, T text tokens, P = T + 2 prompt slots, K latents, N slots of the first pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD

_ROWS = 8


@dataclass(frozen=True)
class CaptionSlots:
    """What R of B rows write after the image."""

    rows: Tensor  # (R,) int64, which of the B they are
    ids: Tensor  # (R, T + 1) int64, <eoi> and the text
    targets: Tensor  # (R, T + 1) int64, the text and <eos>, PAD where none is asked
    positions: Tensor  # (T + 1,) int64
    mask: Tensor  # (R, 1, T + 1, N + T + 1) bool, what they see of the first pass and of themselves


def writing_rows(writes: Tensor) -> tuple[Tensor, int]:
    """writes (B,) bool -> (R,) int64, the rows that write and some more, and the number of those that do.

    R is a multiple of 8, for every new shape costs a CPU memory for kernels, and never 0, for in training all
    processes must come by the same weights."""
    order, count = writes.int().argsort(descending=True, stable=True), int(writes.sum())
    return order.repeat(-(-_ROWS // len(order)))[: max(-(-count // _ROWS), 1) * _ROWS], count


def caption_slots(text_ids: Tensor, rows: Tensor, count: int, seen: Tensor, length: int) -> CaptionSlots:
    """text_ids (B, T) content packed to the left, rows (R,) int64 of which the first `count` write, seen (B, N) bool:
    which slots of the first pass may be looked at; `length` K."""
    asked = torch.arange(len(rows), device=rows.device) < count
    ids, valid, targets = caption_block(text_ids[rows], asked)
    positions = length + 1 + torch.arange(ids.shape[1], device=rows.device)
    own = attention_mask(valid, positions)
    before = (seen[rows][:, None] & valid[..., None])[:, None]
    return CaptionSlots(rows, ids, targets, positions, torch.cat([before, own], -1))


def prompt_block(text_ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """text_ids (B, T) content packed to the left, keep (B,) bool, False = empty prompt.

    -> ids (B, P) `<pad>... <bos> text <boi>` and valid (B, P) bool.
    """
    text = text_ids.shape[1]
    length = (text_ids != PAD).sum(1) * keep  # (B,)
    slot = torch.arange(text + 2, device=text_ids.device)
    content = slot - 1 - (text - length)[:, None]  # (B, P), which content token stands here; -1 is <bos>
    ids = text_ids.gather(1, content.clamp(0, text - 1))
    ids = torch.where(content == -1, BOS, torch.where(content < -1, PAD, ids))
    ids[:, -1] = BOI
    return ids, content >= -1


def caption_block(text_ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """-> (B, T + 1) each: ids `<eoi> text <pad>...`, valid (bool), and targets `text <eos> <pad>...`.

    Rows with keep False are padding throughout.
    """
    length = (text_ids != PAD).sum(1)[:, None]  # (B, 1)
    slot = torch.arange(text_ids.shape[1] + 1, device=text_ids.device)
    valid = (slot <= length) & keep[:, None]
    edge = text_ids.new_zeros(text_ids.shape[0], 1)
    ids = torch.cat([edge + EOI, text_ids], 1) * valid
    targets = torch.where(slot == length, EOS, torch.cat([text_ids, edge], 1)) * valid
    return ids, valid, targets


def prompt_targets(ids: Tensor, valid: Tensor) -> Tensor:
    """ids, valid (B, P) -> (B, P - 1): what the slot predicts where that is text, else PAD."""
    return ids[:, 1:] * (valid[:, :-1] & (ids[:, 1:] != BOI))


def slot_positions(prompt_slots: int, slots: int, device: torch.device | None = None) -> Tensor:
    """(N,) int64 positions of slots in the order of reading: <boi>, the last slot of the prompt, is 0 and z_i is i."""
    return torch.arange(slots, device=device) - (prompt_slots - 1)


def attention_mask(valid: Tensor, positions: Tensor) -> Tensor:
    """valid (B, N) bool, positions (N,) or (B, N) -> (B, 1, N, N) bool: a slot sees the valid ones at positions up to
    its own, and itself."""
    itself = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    earlier = positions[..., None, :] <= positions[..., :, None]
    return ((earlier & valid[:, None]) | itself)[:, None]


def guided_prompts(text_ids: Tensor, guided: bool) -> tuple[Tensor, Tensor]:
    """(B, T) -> ids (R, P), valid (R, P): the prompts, and below them as many empty ones when guided."""
    keep = torch.ones(len(text_ids), dtype=torch.bool, device=text_ids.device)
    if guided:
        text_ids, keep = torch.cat([text_ids, text_ids]), torch.cat([keep, ~keep])
    return prompt_block(text_ids, keep)
