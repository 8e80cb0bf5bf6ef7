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

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.cache import StaticCache
from ar_model.heads.base import Head
from ar_model.sampling import SampleConfig
from ar_model.sequences.base import SequenceVariant, Slots
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD
from seqtok_core.foundation.config import Config
from seqtok_core.layers.blocks import causal_mask
from seqtok_core.layers.flow import guidance_at
from seqtok_core.layers.randomness import Draws


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


def guided_prompts(text_ids: Tensor, guided: bool) -> tuple[Tensor, Tensor]:
    """(B, T) -> ids (R, P), valid (R, P): the prompts, and below them as many empty ones when guided."""
    keep = torch.ones(len(text_ids), dtype=torch.bool, device=text_ids.device)
    if guided:
        text_ids, keep = torch.cat([text_ids, text_ids]), torch.cat([keep, ~keep])
    return prompt_block(text_ids, keep)


class NextTokenConfig(Config):
    """One latent after the other, each predicted from all before it."""

    kind: Literal["next_token"] = "next_token"
    # Share of training samples without a prompt in which the first latents, of a random number, are hidden: what
    # follows is then learnt without them, and kept latents can be insisted on by guidance as a prompt can.
    prefix_dropout: float = Field(0.0, ge=0, le=1)


class NextToken(SequenceVariant):
    def __init__(self, config: NextTokenConfig) -> None:
        super().__init__()
        self.prefix_dropout = config.prefix_dropout

    def arrange(
        self,
        backbone: Backbone,
        z: Tensor,
        noise: Tensor | None,
        text_ids: Tensor,
        prompted: Tensor,
        writes: Tensor | None,
        hidden: Tensor | None = None,
    ) -> Slots:
        prompt, prompt_valid = prompt_block(text_ids, prompted)
        slots, length = prompt.shape[1], z.shape[1]
        seen = z[:, :-1] if writes is None else z  # without captions the last latent predicts nothing
        if noise is not None:
            seen = seen + noise[:, : seen.shape[1]]
        untold = None if hidden is None else torch.arange(seen.shape[1], device=z.device) < hidden[:, None]
        parts = [backbone.embed_text(prompt), backbone.embed_latents(seen, 0, untold)]
        valid = [prompt_valid, prompt_valid.new_ones(seen.shape[:2])]
        texts = {"prompt": (slice(0, slots - 1), prompt_targets(prompt, prompt_valid))}
        if writes is not None:
            ids, caption_valid, targets = caption_block(text_ids, writes)
            parts.append(backbone.embed_text(ids))
            valid.append(caption_valid)
            texts["text"] = (slice(slots + length, None), targets)
        x = torch.cat(parts, 1)
        positions, mask = slot_positions(slots, x.shape[1], x.device), attention_mask(torch.cat(valid, 1))
        return Slots(x, positions, mask, slice(slots - 1, slots - 1 + length), texts)

    @torch.inference_mode()
    def sample(
        self,
        backbone: Backbone,
        head: Head,
        text_ids: Tensor,
        draws: Draws,
        config: SampleConfig,
        length: int,
        tokens: int,
        given: Tensor | None = None,
    ) -> Tensor:
        """The model reads each slot once and keeps its keys and values. R rows are B, or 2 B with guidance: first
        with the prompt, then without. Given latents are read together with the prompt, and where the model has learnt
        to do without them, guidance compares with that."""
        guided = config.guided
        ids, valid = guided_prompts(text_ids, guided)
        rows, prompt_slots = ids.shape
        capacity = prompt_slots + tokens - 1
        positions = slot_positions(prompt_slots, capacity, ids.device)
        valid = torch.cat([valid, valid.new_ones(rows, tokens - 1)], 1)
        latents = [] if given is None else list(given.unbind(1))
        start = prompt_slots + min(len(latents), tokens - 1)  # slots that are read at once: nothing follows the last
        x = backbone.embed_text(ids)
        if given is not None and start > prompt_slots:
            known = given[:, : start - prompt_slots].repeat(rows // len(text_ids), 1, 1)
            below = torch.arange(rows, device=x.device) >= len(text_ids)
            untold = below[:, None].expand(known.shape[:2]) if self.prefix_dropout else None
            x = torch.cat([x, backbone.embed_latents(known, 0, untold)], 1)
        cache = StaticCache(len(backbone.blocks), rows, backbone.heads, capacity, backbone.head_dim, like=x)
        h = backbone(x, positions[:start], attention_mask(valid[:, :start]), cache)[:, -1]
        draw = head.sampler(config.temperature, getattr(config, head.kind))
        for place in range(len(latents), tokens):
            scale = guidance_at(place, length, config.guidance, config.schedule)
            with_prompt, free = h.chunk(2) if guided else (h, None)
            latents.append(draw(with_prompt, free, scale, draws, place))
            if place + 1 < tokens:
                slot = prompt_slots + place
                z = latents[-1].repeat(rows // len(text_ids), 1)
                x = backbone.embed_latents(z[:, None], place)
                seen = valid[:, None, None, : slot + 1]
                h = backbone(x, positions[slot : slot + 1], seen, cache)[:, -1]
        return torch.stack(latents, 1)
