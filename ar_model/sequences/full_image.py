"""The image as one block, all latents denoised together: Transfusion (Zhou et al. 2024, arXiv:2408.11039) on ordered
latents. Text is read and written word by word as ever; inside the image everybody sees everybody.

With `stagger` the order becomes a schedule of noise: the first latents are clean before the last begin, which at a
large stagger is one token after the other (Diffusion Forcing, Chen et al. 2024, arXiv:2407.01392, with fixed shifts).

Shapes: B rows, T text tokens, P = T + 2 prompt slots, K latents of D channels, S steps of the solver.
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
from ar_model.sequences.base import CaptionSettings, Roles, SequenceVariant, Slots
from ar_model.sequences.cache import StaticCache
from ar_model.sequences.denoiser import Denoiser
from ar_model.sequences.layout import attention_mask, guided_prompts, prompt_block, prompt_targets, slot_positions
from ar_model.sequences.reading import ImageSlots
from seq_tokenizer.latents import LatentSpec
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws


class FullImageConfig(CaptionSettings):
    """All latents of an image denoised together, without a head."""

    kind: Literal["full_image"] = "full_image"
    prediction: Literal["velocity", "data"] = "velocity"
    time_mean: float = 0.0  # of the logit of t in training
    time_std: float = Field(1.0, gt=0)
    stagger: float = Field(0.0, ge=0)  # how much later the last latent begins, in units of one latent's whole way
    given: float = Field(0.2, ge=0, le=1)  # share of images whose first latents, of a random number, are given clean
    caption_prefixes: float = Field(0.0, ge=0, le=1)  # share of captions that are written from the first latents alone


class FullImage(SequenceVariant):
    denoises = True

    def __init__(self, config: FullImageConfig, width: int, spec: LatentSpec) -> None:
        super().__init__(config, width)
        self.config, self.caption_prefixes = config, config.caption_prefixes
        self.denoiser = Denoiser(width, spec.dim, config.prediction)

    def times(self, u: Tensor, length: int) -> Tensor:
        """u (B,) the time of the image, 0 noise and 1 data -> (B, K) that of each latent."""
        place = torch.arange(length, device=u.device) / max(length - 1, 1)
        return ((1 + self.config.stagger) * u[:, None] - self.config.stagger * place).clamp(0, 1)

    def embed(self, backbone: Backbone, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, n, D), t (B, n) -> (B, n, W)."""
        return backbone.embed_latents(x_t) + self.denoiser.embed_time(t)

    def arrange(
        self, backbone: Backbone, z: Tensor, noise: Tensor | None, text_ids: Tensor, roles: Roles, draws: Draws
    ) -> Slots:
        """Where text is written, and where latents are given, latents are clean and nothing is asked of them."""
        length = z.shape[1]
        ids, valid = prompt_block(text_ids, roles.prompted)
        prompt, place = ids.shape[1], torch.arange(length, device=z.device)
        u = flow.logit_normal_times(draws.uniform("image/time", (1,)), self.config.time_mean, self.config.time_std)
        clean = place < self._given(draws, length)[:, None]
        if roles.writes is not None:
            clean = clean | roles.writes[:, None]
        t = self.times(u[:, 0], length).masked_fill(clean, 1.0)
        clean = t == 1.0  # with a stagger the first ones can have arrived already
        start = draws.normal("image/noise", tuple(z.shape[1:]))
        x_t = flow.interpolate(start, z.float(), t[..., None])
        read = x_t if noise is None else x_t + noise * clean[..., None]
        words = backbone.embed_text(ids)
        x = torch.cat([words, self.embed(backbone, read, t).to(words.dtype)], 1)
        told = torch.ones_like(clean) if roles.told is None else self._told(roles, place)
        positions = slot_positions(prompt, prompt + length, z.device)
        mask = attention_mask(torch.cat([valid, told], 1), positions.clamp(max=1))  # latents see each other both ways
        captions = self.captions(backbone, text_ids, roles, valid, told, length)

        def loss(h: Tensor) -> Tensor:
            velocity = self.denoiser.velocity(h[:, prompt:], x_t, t)
            return flow.flow_loss(velocity, start, z) * ~clean

        asked = (slice(0, prompt - 1), prompt_targets(ids, valid))
        return Slots(x, positions, mask, slice(prompt, prompt + length), asked, captions, loss)

    def _given(self, draws: Draws, length: int) -> Tensor:
        """-> (B,) int64, how many of the first latents are given."""
        chosen = draws.uniform("image/given") < self.config.given
        return torch.where(chosen, (draws.uniform("image/known") * length).long(), 0)

    def _told(self, roles: Roles, place: Tensor) -> Tensor:
        """-> (B, K) bool: where a caption is written from a prefix, nobody sees beyond it."""
        assert roles.told is not None
        assert roles.writes is not None
        return (place < roles.told[:, None]) | ~roles.writes[:, None]

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
        """The prompt is read once; every step of the solver reads the image anew. R rows are B, or 2 B with guidance,
        which compares with the empty prompt. The steps are those of the whole image, whose latents come together at
        the end."""
        ids, valid = guided_prompts(text_ids, config.guided)
        (rows, prompt), device = ids.shape, text_ids.device
        positions = slot_positions(prompt, prompt + length, device)
        x = backbone.embed_text(ids)
        cache = StaticCache(len(backbone.blocks), rows, backbone.heads, prompt + length, backbone.head_dim, like=x)
        backbone(x, positions[:prompt], attention_mask(valid, positions[:prompt]), cache)
        seen = torch.cat([valid, valid.new_ones(rows, length)], 1)[:, None, None].expand(-1, -1, length, -1)
        place = range(length)
        scales = [flow.guidance_at(i, length, config.guidance, config.schedule) for i in place]
        scale = torch.tensor(scales, device=device)[:, None]
        known = 0 if given is None else given.shape[1]
        noise = config.temperature * torch.stack(
            [draws.normal(f"sample/{i}", (self.denoiser.out.out_features,)) for i in place], 1
        )
        z = noise if given is None else torch.cat([given.float(), noise[:, known:]], 1)
        grid = flow.time_grid(config.flow.steps, device)
        times = self.times(grid, length)  # (S + 1, K)
        times[:, :known] = 1.0
        guided = (times >= config.flow.guided_from) & (times <= config.flow.guided_until)

        def velocity(z: Tensor, at: int) -> Tensor:
            t = times[at].expand(len(z), -1)
            doubled = rows // len(z)
            x = self.embed(backbone, z.repeat(doubled, 1, 1), t.repeat(doubled, 1))
            h = backbone(x, positions[prompt:], seen, cache)
            cache.rewind(prompt)
            v = self.denoiser.velocity(h, z.repeat(doubled, 1, 1), t.repeat(doubled, 1))
            if not config.guided:
                return v
            with_prompt, free = v.chunk(2)
            own = torch.where(guided[at, :, None], scale, 1.0)
            return free + own * (with_prompt - free)

        z = flow.SOLVERS[config.flow.solver](velocity, z, times[..., None])
        yield from z[:, :tokens].unbind(1)

    def read(self, backbone: Backbone, z: Tensor) -> ImageSlots:
        """All see each other."""
        place = torch.arange(1, z.shape[1] + 1, device=z.device)
        return ImageSlots(self.embed(backbone, z, z.new_ones(z.shape[:2])), place, torch.ones_like(place), place - 1)
