"""From prompts to latents, token by token: the model reads each slot once and keeps its keys and values.

Shapes: B prompts, R rows (B, or 2 B with guidance: first with the prompt, then without), P prompt slots,
K latents of D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.cache import StaticCache
from ar_model.config import SampleConfig
from ar_model.heads.base import Head
from ar_model.sequences.next_token import attention_mask, prompt_block, slot_positions
from seqtok_core.layers.flow import guidance_at
from seqtok_core.layers.randomness import Draws


def is_guided(config: SampleConfig) -> bool:
    return config.guidance != 1.0


def guided_prompts(text_ids: Tensor, guided: bool) -> tuple[Tensor, Tensor]:
    """(B, T) -> ids (R, P), valid (R, P): the prompts, and below them as many empty ones when guided."""
    keep = torch.ones(len(text_ids), dtype=torch.bool, device=text_ids.device)
    if guided:
        text_ids, keep = torch.cat([text_ids, text_ids]), torch.cat([keep, ~keep])
    return prompt_block(text_ids, keep)


@torch.inference_mode()
def sample_latents(
    backbone: Backbone,
    head: Head,
    text_ids: Tensor,
    draws: Draws,
    config: SampleConfig,
    length: int,
    tokens: int,
) -> Tensor:
    """text_ids (B, T) -> the first `tokens` of K = `length` standardised latents (B, tokens, D) float32."""
    guided = is_guided(config)
    ids, valid = guided_prompts(text_ids, guided)
    rows, prompt_slots = ids.shape
    capacity = prompt_slots + tokens - 1
    positions = slot_positions(prompt_slots, capacity, ids.device)
    valid = torch.cat([valid, valid.new_ones(rows, tokens - 1)], 1)
    x = backbone.embed_text(ids)
    cache = StaticCache(len(backbone.blocks), rows, backbone.heads, capacity, backbone.head_dim, like=x)
    h = backbone(x, positions[:prompt_slots], attention_mask(valid[:, :prompt_slots]), cache)[:, -1]
    draw = head.sampler(config)
    latents = []
    for place in range(tokens):
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
