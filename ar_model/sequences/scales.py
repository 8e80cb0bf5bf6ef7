"""Group after group, all latents of a group at once: next-scale prediction (VAR, Tian et al. 2024, arXiv:2404.02905).

A slot stands for a latent of its group; what it reads is the latent of the group before that lies over it, and it sees
every slot of its own group and of those before. Latents of one group are drawn independently of each other: for
scales of a residual pyramid, where finer cells mend what coarser ones left, that is the usual assumption; for other
latents it is an ablation of their order. Captions follow the image, so that for them the last group is read, too.

Shapes: B rows, T text tokens, P = T + 2 prompt slots, K latents of D channels, S groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.heads.base import Head, Sampler
from ar_model.sampling import SampleConfig
from ar_model.sequences.base import CaptionSettings, Roles, SequenceVariant, Slots
from ar_model.sequences.cache import StaticCache
from ar_model.sequences.layout import attention_mask, guided_prompts, prompt_block, prompt_targets, slot_positions
from ar_model.sequences.reading import ImageSlots
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.flow import guidance_at
from seqtok_core.layers.randomness import Draws

_PLACE = 48  # bits above epochs and candidates


class ScalesConfig(CaptionSettings):
    """One group of latents after the other."""

    kind: Literal["scales"] = "scales"
    # Latents of each group, from coarse to fine; empty: those that the tokenizer names (a pyramid's scales).
    groups: tuple[Annotated[int, Field(ge=1)], ...] = ()


class Scales(SequenceVariant):
    def __init__(self, config: ScalesConfig, width: int, spec: LatentSpec) -> None:
        super().__init__(config, width)
        self.groups = config.groups or spec.groups
        shown = ", ".join(map(str, self.groups))
        if not self.groups:
            raise ConfigError("sequence.kind=scales: this tokenizer names no groups; give sequence.groups=[1,2,...]")
        if sum(self.groups) != spec.length:
            raise ConfigError(f"sequence.groups={shown}: {sum(self.groups)} latents, the tokenizer has {spec.length}")
        if list(self.groups) != sorted(self.groups):
            raise ConfigError(f"sequence.groups={shown}: no group may be smaller than the one before it")
        self.dim = spec.dim

    def parents(self) -> list[int | None]:
        """Of each latent the one that lies over it in the group before; None in the first group."""
        found: list[int | None] = [None] * self.groups[0]
        start = 0
        for before, size in zip(self.groups[:-1], self.groups[1:], strict=True):
            found += [start + place for place in nearest(before, size)]
            start += before
        return found

    def embed(self, backbone: Backbone, z: Tensor, group: int) -> Tensor:
        """z (B, n, D), the latents so far, at least those before the group -> (B, size, W), its slots."""
        start, size = sum(self.groups[:group]), self.groups[group]
        over = torch.tensor([parent or 0 for parent in self.parents()[start : start + size]], device=z.device)
        told = z[:, over] if group else z.new_zeros(len(z), size, z.shape[2])
        hidden = torch.full(told.shape[:2], group == 0, device=z.device)
        return backbone.embed_latents(told, start, hidden)

    def echo(self, backbone: Backbone, z: Tensor) -> Tensor:
        """z (B, K, D) -> (B, size, W): the last group as it is read by captions."""
        start = sum(self.groups[:-1])
        return backbone.embed_latents(z[:, start:], start)

    def order(self, echo: bool, device: torch.device) -> Tensor:
        """(K,) int64, and the last group once more with `echo`: the group of each slot, from 1 on, which says who sees
        whom."""
        sizes = [*self.groups, *([self.groups[-1]] if echo else [])]
        number = torch.arange(1, len(sizes) + 1, device=device)
        return number.repeat_interleave(torch.tensor(sizes, device=device))

    def places(self, echo: bool, device: torch.device) -> Tensor:
        """Positions of the same slots: z_i is at i, wherever it is read."""
        place = torch.arange(1, sum(self.groups) + 1, device=device)
        return torch.cat([place, place[-self.groups[-1] :]]) if echo else place

    def arrange(
        self, backbone: Backbone, z: Tensor, noise: Tensor | None, text_ids: Tensor, roles: Roles, draws: Draws
    ) -> Slots:
        """What a slot reads is noisy, what it leads to is not."""
        ids, valid = prompt_block(text_ids, roles.prompted)
        prompt, length = ids.shape[1], z.shape[1]
        read, writes = z if noise is None else z + noise, roles.writes is not None
        parts = [self.embed(backbone, read, group) for group in range(len(self.groups))]
        if writes:
            parts.append(self.echo(backbone, read))
        image = torch.cat(parts, 1)
        x = torch.cat([backbone.embed_text(ids), image.to(parts[0].dtype)], 1)
        front = slot_positions(prompt, prompt, z.device)
        seen = valid.new_ones(image.shape[:2])
        mask = attention_mask(torch.cat([valid, seen], 1), torch.cat([front, self.order(writes, z.device)]))
        captions = self.captions(backbone, text_ids, roles, valid, seen, length)
        positions = torch.cat([front, self.places(writes, z.device)])
        asked = (slice(0, prompt - 1), prompt_targets(ids, valid))
        return Slots(x, positions, mask, slice(prompt, prompt + length), asked, captions)

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
    ) -> Iterator[Tensor]:
        """The model reads as many slots at once as a group has. R rows are B, or 2 B with guidance, whose scale is that
        of a group's first latent."""
        guided, count = config.guided, len(text_ids)
        ids, valid = guided_prompts(text_ids, guided)
        (rows, prompt), device = ids.shape, ids.device
        x = backbone.embed_text(ids)
        cache = StaticCache(len(backbone.blocks), rows, backbone.heads, prompt + length, backbone.head_dim, like=x)
        positions = slot_positions(prompt, prompt + length, device)
        backbone(x, positions[:prompt], attention_mask(valid, positions[:prompt]), cache)
        draw = head.sampler(config.temperature, getattr(config, head.kind))
        known = 0 if given is None else given.shape[1]
        z = torch.zeros(count, 0, self.dim, device=device) if given is None else given.float()
        yield from z.unbind(1)
        start = 0
        for group, size in enumerate(self.groups):
            stop = start + size
            if start >= tokens:
                return
            slots = slice(prompt + start, prompt + stop)
            seen = torch.cat([valid, valid.new_ones(rows, stop)], 1)[:, None, None].expand(-1, -1, size, -1)
            x = self.embed(backbone, z.repeat(rows // count, 1, 1), group)
            h = backbone(x, positions[slots], seen, cache)
            wanted = range(max(known, start), min(stop, tokens))
            if wanted:
                with_prompt, free = h.chunk(2) if guided else (h, None)
                scale = guidance_at(start, length, config.guidance, config.schedule)
                own = slice(wanted.start - start, wanted.stop - start)
                without = None if free is None else free[:, own]
                drawn = _at_once(draw, with_prompt[:, own], without, scale, draws, wanted)
                z = torch.cat([z, drawn], 1)
                yield from drawn.unbind(1)
            start = stop

    def read(self, backbone: Backbone, z: Tensor) -> ImageSlots:
        """A latent is read by the slots of the group after it that it lies over, one of the last group by its echo."""
        if not z.shape[1]:
            none = torch.arange(0, device=z.device)
            return ImageSlots(backbone.embed_latents(z), none, none, none)
        parts = [self.embed(backbone, z, group) for group in range(len(self.groups))]
        image = torch.cat([*parts, self.echo(backbone, z)], 1)
        last = range(sum(self.groups[:-1]), sum(self.groups))
        over = [-1 if parent is None else parent for parent in self.parents()]
        order, places = self.order(True, z.device), self.places(True, z.device)
        return ImageSlots(image, places, order, torch.tensor([*over, *last], device=z.device))


def nearest(before: int, size: int) -> list[int]:
    """Of `size` cells, each in turn the cell of `before` that lies over it: on square grids where both numbers are
    squares, row by row, else along the line."""
    a, b = isqrt(before), isqrt(size)
    if a * a == before and b * b == size:
        return [(row * a // b) * a + column * a // b for row in range(b) for column in range(b)]
    return [place * before // size for place in range(size)]


def _at_once(draw: Sampler, h: Tensor, free: Tensor | None, scale: float, draws: Draws, places: range) -> Tensor:
    """h and free (B, n, W) -> (B, n, D), each latent with numbers of its own whatever the others are."""
    count, n = h.shape[:2]
    place = torch.arange(places.start, places.stop, device=h.device).repeat(count)
    own = Draws(draws.seed, draws.epoch.repeat_interleave(n) + (place << _PLACE), draws.index.repeat_interleave(n))
    flat = None if free is None else free.flatten(0, 1)
    return draw(h.flatten(0, 1), flat, scale, own, place).unflatten(0, (count, n))
