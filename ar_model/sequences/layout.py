"""One grid of slots for both directions: text in front, then the image.

    text -> image   <pad> <pad> <bos> text <boi> | z_1 ... z_K
    image -> text   <eoi> text  <pad> <bos> <boi> | z_1 ... z_K

What comes after the image in the order of reading stands in the slots that a prompt would have taken: who sees whom
is a matter of positions and not of slots, so that training both ways takes one slot more than training one.
Positions count from <boi> = 0, z_i is i and <eoi> is K + 1: they do not depend on the padding, and image -> text
starts exactly as a prompt that was left empty. Padding is seen by itself only (with no slot to see, softmax has no
meaning).

Shapes: B rows, T text tokens, P = T + 2 prompt slots, K latents, N slots in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD


@dataclass(frozen=True)
class TextSlots:
    """S slots in front of the image, with what they say and what is asked of them."""

    ids: Tensor  # (B, S) int64
    valid: Tensor  # (B, S) bool, False where there is padding
    positions: Tensor  # (B, S) int64
    prompt: tuple[slice, Tensor]  # slots, and target ids (B, n), PAD where none is asked
    caption: tuple[slice, Tensor] | None  # likewise; None where nobody writes
    after: Tensor  # (B, S) bool, where the slot comes after the image


def text_slots(text_ids: Tensor, prompted: Tensor, writes: Tensor | None, length: int) -> TextSlots:
    """text_ids (B, T) content packed to the left; prompted and writes (B,) bool, not both; `length` K. With
    writes None there are P slots, else P + 1."""
    ids, valid = prompt_block(text_ids, prompted)
    targets = prompt_targets(ids, valid)
    if writes is None:
        positions = slot_positions(ids.shape[1], ids.shape[1], ids.device).expand_as(ids)
        return TextSlots(ids, valid, positions, (slice(0, ids.shape[1] - 1), targets), None, torch.zeros_like(valid))
    caption, after, caption_targets = caption_block(text_ids, writes)
    ids, valid, after = F.pad(ids, (1, 0)) + F.pad(caption, (0, 2)), F.pad(valid, (1, 0)), F.pad(after, (0, 2))
    slot = torch.arange(ids.shape[1], device=ids.device)
    positions = torch.where(after, length + 1 + slot, slot - (len(slot) - 1))
    rows = slice(0, caption.shape[1])
    return TextSlots(
        ids, valid | after, positions, (slice(1, ids.shape[1] - 1), targets), (rows, caption_targets), after
    )


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
