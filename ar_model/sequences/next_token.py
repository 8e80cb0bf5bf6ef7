"""One latent after the other, each predicted from all before it; captions word by word from the latents.

Shapes: B rows, T text tokens, P = T + 2 prompt slots, K latents, N slots in all, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.heads.base import Head
from ar_model.sampling import SampleConfig
from ar_model.sequences.base import CaptionSettings, Roles, SequenceVariant, Slots, Weak
from ar_model.sequences.drawing import Front, ReadSoFar, draw_behind
from ar_model.sequences.layout import attention_mask, guided_prompts, prompt_block, prompt_targets, slot_positions
from ar_model.sequences.reading import ImageSlots
from seq_tokenizer.latents import LatentSpec
from seqtok_core.layers.randomness import Draws


class NextTokenConfig(CaptionSettings):
    """One latent after the other, each predicted from all before it."""

    kind: Literal["next_token"] = "next_token"
    # Share of training samples without a prompt in which the first latents, of a random number, are hidden: what
    # follows is then learnt without them, and kept latents can be insisted on by guidance as a prompt can.
    prefix_dropout: float = Field(0.0, ge=0, le=1)
    # Share of captions that are written from the first latents alone, of a random number: so the model says what a
    # prefix shows.
    caption_prefixes: float = Field(0.0, ge=0, le=1)


class NextToken(SequenceVariant):
    takes_meaning = takes_weak = True

    def __init__(self, config: NextTokenConfig, width: int, spec: LatentSpec) -> None:
        super().__init__(config, width)
        self.prefix_dropout, self.caption_prefixes = config.prefix_dropout, config.caption_prefixes

    def arrange(
        self, backbone: Backbone, z: Tensor, noise: Tensor | None, text_ids: Tensor, roles: Roles, draws: Draws
    ) -> Slots:
        """In training on text -> image alone the last latent is left out: it would predict nothing, the number of
        latents being fixed."""
        length = z.shape[1]
        ids, valid = prompt_block(text_ids, roles.prompted)
        prompt = ids.shape[1]
        seen = z[:, :-1] if roles.writes is None else z
        if noise is not None:
            seen = seen + noise[:, : seen.shape[1]]
        place = torch.arange(seen.shape[1], device=z.device)
        untold = None if roles.hidden is None else place < roles.hidden[:, None]
        x = torch.cat([roles.embed_prompts(backbone, ids), backbone.embed_latents(seen, 0, untold)], 1)
        positions, latents = slot_positions(prompt, x.shape[1], z.device), valid.new_ones(seen.shape[:2])
        mask = attention_mask(torch.cat([valid, latents], 1), positions)
        captions = self.captions(backbone, text_ids, roles, valid, latents, length)
        asked = (slice(0, prompt - 1), prompt_targets(ids, valid))
        return Slots(x, positions, mask, slice(prompt - 1, prompt - 1 + length), asked, captions)

    @torch.inference_mode()
    def draw(
        self,
        backbone: Backbone,
        head: Head,
        text_ids: Tensor,
        draws: Draws,
        config: SampleConfig,
        length: int,
        tokens: int,
        given: Tensor | None = None,
        weak: Weak | None = None,
        hides: bool = False,
    ) -> Iterator[Tensor]:
        """The model reads each slot once and keeps its keys and values. R rows are B, or 2 B with guidance: first
        with the prompt, then without, and where it `hides`, without the given latents, which are read together with
        the prompt. A weaker model that guides reads what this one reads."""
        guides = weak if config.guided else None
        both, already = config.guided and guides is None, 0 if given is None else given.shape[1]
        further = tokens - 1 - min(already, tokens - 1)  # nothing follows the last: it is not read
        reading = ReadSoFar(backbone, _front(backbone, text_ids, both, tokens, given, hides), further)
        other = None
        if guides is not None:
            front = _front(guides.backbone, text_ids, False, tokens, given, False)
            other = ReadSoFar(guides.backbone, front, further), guides
        if given is not None:
            yield from given.unbind(1)
        yield from draw_behind(reading, backbone, head, draws, config, length, range(already, tokens), other)

    def read(self, backbone: Backbone, z: Tensor) -> ImageSlots:
        place = torch.arange(1, z.shape[1] + 1, device=z.device)
        return ImageSlots(backbone.embed_latents(z), place, place, place - 1)


def _front(backbone: Backbone, text_ids: Tensor, both: bool, tokens: int, given: Tensor | None, hides: bool) -> Front:
    """text_ids (B, T) -> R rows, B or for `both` 2 B, first with the prompts and then without, and behind them the
    given latents (B, k, D) but the last of `tokens`. `hides`: they are not told to the latter."""
    ids, valid = guided_prompts(text_ids, both)
    rows, prompt = ids.shape
    x, known = backbone.embed_text(ids), None if given is None else given[:, : tokens - 1]
    if known is not None and known.shape[1]:
        known = known.repeat(rows // len(text_ids), 1, 1)
        below = torch.arange(rows, device=x.device) >= len(text_ids)
        untold = below[:, None].expand(known.shape[:2]) if hides else None
        x = torch.cat([x, backbone.embed_latents(known, 0, untold)], 1)
        valid = torch.cat([valid, valid.new_ones(known.shape[:2])], 1)
    return Front.in_order(x, slot_positions(prompt, x.shape[1], x.device), valid)
