"""Layout of the mixed sequence: one grid of slots for both directions.

    text -> image   <pad> <bos> text <boi> | z_1 ... z_K |
    image -> text         <bos>      <boi> | z_1 ... z_K | <eoi> text <pad>

Text before the image is packed to the right and text after it to the left, so the image stands in the same
slots of every row, whatever its caption's length. Positions count from <boi> = 0: they do not depend on the
padding either, and image -> text starts exactly as a prompt that was left empty. Padding is seen by itself
only (with no slot to see, softmax has no meaning). In training on text -> image alone the last latent and
<eoi> are left out: they would predict nothing, the number of latents being fixed.

Shapes: B rows, T text tokens, P = T + 2 prompt slots, K latents, N slots in all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD
from seqtok_core.layers.blocks import causal_mask


def trim(text_ids: Tensor) -> Tensor:
    """(B, T) -> (B, longest): drop the columns that are padding in every row (at least one stays)."""
    longest = int((text_ids != PAD).sum(1).max().clamp(min=1))
    return text_ids[:, :longest]


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
    """(N,) int64 positions of all slots: <boi>, the last slot of the prompt, is 0 and z_i is i."""
    return torch.arange(slots, device=device) - (prompt_slots - 1)


def attention_mask(valid: Tensor) -> Tensor:
    """valid (B, N) bool -> (B, 1, N, N) bool: slot i sees the valid slots <= i, and itself."""
    slots = valid.shape[1]
    itself = torch.eye(slots, dtype=torch.bool, device=valid.device)
    return ((causal_mask(slots, valid.device) & valid[:, None]) | itself)[:, None]
