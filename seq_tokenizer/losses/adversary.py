"""A discriminator of patches: whole decodings shall look like pictures, not like averages of pictures.

It is a second player in the same engine, with rates of its own: its loss (hinge, arXiv:1705.02894) sees detached
pictures, and the tokenizer is judged through detached weights, so that neither's gradient reaches the other. It starts
late, as in VQGAN (Esser et al. 2021, arXiv:2012.09841), when pictures are worth judging; until then it costs nothing
and does not learn. Convolutions without norms: PatchGAN (arXiv:1611.07004) without what depends on the batch.

Shapes: B images, C channels, h x w patches that are judged.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.shape import Positive
from seq_tokenizer.text.gather import ranks
from seqtok_core.foundation.config import Config


class AdversaryConfig(Config):
    """When it starts, what it weighs, and how it learns."""

    weight: Annotated[float, Field(ge=0)] = 0.1  # of what the tokenizer is judged by; the discriminator's own is 1
    start_images: Annotated[int, Field(ge=0)] = 0  # images that training has seen by then
    width: Positive = 64  # channels of its first layer
    layers: Annotated[int, Field(ge=1, le=6)] = 3  # each halves the picture
    lr: Annotated[float, Field(gt=0)] = 2e-4
    # Of AdamW. With a long second average the first steps would be large: it is empty until the start.
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.9)


class Discriminator(nn.Sequential):
    """(B, 3, H, W) -> (B, 1, h, w): above 0 where it takes a patch for a real one's."""

    MUON_EXCLUDED = ()  # convolutions

    def __init__(self, width: int, layers: int) -> None:
        parts: list[nn.Module] = []
        channels = [3, *(width * min(2**i, 8) for i in range(layers))]
        for inside, outside in itertools.pairwise(channels):
            parts += [nn.Conv2d(inside, outside, 4, 2, 1), nn.LeakyReLU(0.2)]
        super().__init__(*parts, nn.Conv2d(channels[-1], 1, 3, 1, 1))


class AdversaryTerm(Term):
    """The tokenizer's part and the discriminator's in one sum."""

    needs_pictures: ClassVar[bool] = True

    seen: Tensor  # images of training so far, of all ranks; in checkpoints, so that a continued run starts it in time

    def __init__(self, config: AdversaryConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator = Discriminator(config.width, config.layers)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def own_rates(self) -> dict[str, dict[str, Any]]:
        return {"discriminator": {"lr": self.config.lr, "betas": self.config.betas}}

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        started = int(self.seen) >= self.config.start_images
        if self.training:
            self.seen += ranks() * len(view.batch)
        if not started:
            nothing = view.decoded.new_zeros(())
            return nothing, {"fool_loss": nothing, "judge_loss": nothing}
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fool = -torch.func.functional_call(self.discriminator, fixed, view.whole).float().mean()
        on_real = self.discriminator(view.pixels).float()
        on_drawn = self.discriminator(view.whole.detach()).float()
        judge = (1 - on_real).relu().mean() + (1 + on_drawn).relu().mean()
        return self.config.weight * fool + judge, {"fool_loss": fool.detach(), "judge_loss": judge.detach()}
