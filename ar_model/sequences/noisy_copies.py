"""One Transformer and no head: beside the clean sequence stand noisy copies of every latent, which it learns to clean.

A copy of z_i stands at the place of z_i, sees the text and the clean latents before it, and itself; nobody sees a copy.
So the Transformer is a next-token model and, for the next token, its own denoiser: several copies of every latent cost
one pass over a longer sequence. In sampling a step of the solver reads one slot.

Shapes: B rows, T text tokens, K latents of D channels, N slots, R copies of each latent.
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
from ar_model.sequences.base import Roles, Slots, Weak
from ar_model.sequences.cache import StaticCache
from ar_model.sequences.denoiser import Denoiser
from ar_model.sequences.layout import attention_mask, guided_prompts, slot_positions
from ar_model.sequences.next_token import NextToken, NextTokenConfig
from seq_tokenizer.latents import LatentSpec
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws


class NoisyCopiesConfig(NextTokenConfig):
    """The next latent denoised by the Transformer itself."""

    kind: Literal["noisy_copies"] = "noisy_copies"  # type: ignore[assignment]
    copies: int = Field(4, ge=1)  # of every latent in a training step, each with its own noise
    prediction: Literal["velocity", "data"] = "velocity"
    time_mean: float = 0.0  # of the logit of t in training
    time_std: float = Field(1.0, gt=0)


class NoisyCopies(NextToken):
    denoises = True
    takes_weak = False

    def __init__(self, config: NoisyCopiesConfig, width: int, spec: LatentSpec) -> None:
        super().__init__(config, width, spec)
        self.config = config
        self.denoiser = Denoiser(width, spec.dim, config.prediction)

    def embed(self, backbone: Backbone, x_t: Tensor, t: Tensor, first: int = 0) -> Tensor:
        """x_t (B, n, D), the first of them at place `first`, t (B, n) -> (B, n, W)."""
        return backbone.embed_latents(x_t, first) + self.denoiser.embed_time(t)

    def arrange(
        self, backbone: Backbone, z: Tensor, noise: Tensor | None, text_ids: Tensor, roles: Roles, draws: Draws
    ) -> Slots:
        """The slots of next_token, then R times K copies."""
        front = super().arrange(backbone, z, noise, text_ids, roles, draws)
        count, length, copies = len(z), z.shape[1], self.config.copies
        u = draws.uniform("copy/time", (copies,))
        t = flow.logit_normal_times(u, self.config.time_mean, self.config.time_std)  # (B, R)
        start = draws.normal("copy/noise", (copies, *z.shape[1:]))  # (B, R, K, D)
        x_t = flow.interpolate(start, z[:, None].float(), t[..., None, None])
        each = t[..., None].expand(-1, -1, length)
        noisy = self.embed(backbone, x_t.flatten(0, 1), each.flatten(0, 1)).view(count, copies * length, -1)
        place = torch.arange(1, length + 1, device=z.device).repeat(copies)
        positions = torch.cat([front.positions, place])
        slots, own = front.x.shape[1], torch.eye(copies * length, dtype=torch.bool, device=z.device)
        before = self._before(front, place)
        mask = torch.zeros(count, 1, len(positions), len(positions), dtype=torch.bool, device=z.device)
        mask[..., :slots, :slots] = front.mask
        mask[:, 0, slots:, :slots] = before
        mask[..., slots:, slots:] = own

        def loss(h: Tensor) -> Tensor:
            states = h[:, slots:].unflatten(1, (copies, length))
            return flow.flow_loss(self.denoiser.velocity(states, x_t, each), start, z[:, None]).mean(1)

        x = torch.cat([front.x, noisy.to(front.x.dtype)], 1)
        captions = None if front.captions is None else front.captions.blind_to(copies * length)
        return Slots(x, positions, mask, front.latents, front.prompt, captions, loss)

    @staticmethod
    def _before(front: Slots, place: Tensor) -> Tensor:
        """place (R K,) -> (B, R K, N): what a copy of z_i sees is what the slot before z_i sees."""
        lead = front.mask[:, 0, front.latents]  # (B, K, N): row i is the slot whose state leads to z_(i + 1)
        return lead[:, place - 1]

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
        """Text and clean latents are read once and kept; the copy that is cleaned is read at every step and forgotten.
        R rows are B, or 2 B with guidance. Without a head no weaker model guides."""
        ids, valid = guided_prompts(text_ids, config.guided)
        (rows, prompt), device, count = ids.shape, ids.device, len(text_ids)
        positions = slot_positions(prompt, prompt + tokens, device)
        valid = torch.cat([valid, valid.new_ones(rows, tokens)], 1)
        already = 0 if given is None else given.shape[1]
        x = backbone.embed_text(ids)
        if given is not None:
            known = given.repeat(rows // count, 1, 1)
            below = torch.arange(rows, device=device) >= count
            untold = below[:, None].expand(known.shape[:2]) if hides else None
            x = torch.cat([x, backbone.embed_latents(known, 0, untold)], 1)
            yield from given.unbind(1)
        cache = StaticCache(len(backbone.blocks), rows, backbone.heads, prompt + tokens, backbone.head_dim, like=x)
        read = x.shape[1]
        backbone(x, positions[:read], attention_mask(valid[:, :read], positions[:read]), cache)
        times = flow.time_grid(config.flow.steps, device)
        grid = times.tolist()
        for place in range(already, tokens):
            slot = prompt + place
            seen, position = valid[:, None, None, : slot + 1], positions[slot : slot + 1]
            scale = flow.guidance_at(place, length, config.guidance, config.schedule)

            def velocity(z: Tensor, at: int, place: int = place, scale: float = scale) -> Tensor:
                doubled = z.repeat(rows // count, 1)[:, None]
                t = times[at].expand(rows, 1)
                h = backbone(self.embed(backbone, doubled, t, place), position, seen, cache)  # noqa: B023
                cache.rewind(prompt + place)
                v = self.denoiser.velocity(h, doubled, t)[:, 0]
                if not config.guided:
                    return v
                with_prompt, free = v.chunk(2)
                return flow.guide(with_prompt, free, scale if config.flow.guides(grid[at]) else 1.0)

            start = config.temperature * draws.normal(f"sample/{place}", (self.denoiser.out.out_features,))
            drawn = flow.SOLVERS[config.flow.solver](velocity, start, times)
            yield drawn
            if place + 1 < tokens:
                clean = drawn.repeat(rows // count, 1)[:, None]
                backbone(backbone.embed_latents(clean, place), position, seen, cache)
