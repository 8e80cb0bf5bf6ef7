"""An image on its own: how it is read where there is no prompt, to be described or to be looked into.

Shapes: B images, K latents, n slots of an image, N = n + 2 slots with `<bos> <boi>` before them, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.sequences.layout import attention_mask, slot_positions
from data_pipelines.captions.tokenizer import BOI, BOS

_BEFORE = 2  # slots: <bos> <boi>


@dataclass(frozen=True)
class ImageSlots:
    """What reads the latents of an image, clean and without a prompt."""

    x: Tensor  # (B, n, W), embedded
    positions: Tensor  # (n,) int64 from 1 to K
    order: Tensor  # (n,) int64 from 1 on: a slot sees those whose order is not above its own
    latents: Tensor  # (n,) int64, which latent a slot reads, from 0; -1: none

    def opened(self, backbone: Backbone) -> tuple[Tensor, Tensor, Tensor]:
        """`<bos> <boi> image` -> x (B, N, W), positions (N,) and mask (B, 1, N, N)."""
        begin = backbone.embed_text(torch.tensor([[BOS, BOI]], device=self.x.device).expand(len(self.x), -1))
        x, front = torch.cat([begin, self.x], 1), slot_positions(_BEFORE, _BEFORE, self.x.device)
        mask = attention_mask(x.new_ones(x.shape[:2], dtype=torch.bool), torch.cat([front, self.order]))
        return x, torch.cat([front, self.positions]), mask


def hidden_states(backbone: Backbone, image: ImageSlots) -> Tensor:
    """-> (blocks, B, K, W), after every block: of each latent the slot that reads it, the mean where several do."""
    kept: list[Tensor] = []
    backbone(*image.opened(backbone), kept=kept)
    h = torch.stack(kept)[:, :, _BEFORE:]
    place = torch.arange(int(image.latents.max()) + 1, device=h.device)
    reads = (image.latents == place[:, None]).to(h.dtype)  # (K, n)
    return torch.einsum("kn,lbnw->lbkw", reads / reads.sum(1, keepdim=True), h)
