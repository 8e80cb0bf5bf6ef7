"""Image-text contrast over prefixes (ITC): a caption level against the prefix that may know it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seq_tokenizer.text.tower import _open_clip


class CaptionLoss(nn.Module):
    """CLIP's symmetric cross-entropy over the batch of all ranks, with every equal caption a positive."""

    def __init__(self, logit_scale_max: float) -> None:
        super().__init__()
        self.logit_scale_max = logit_scale_max

    def forward(self, images: Tensor, texts: Tensor, caption_ids: Tensor, logit_scale: Tensor) -> Tensor:
        """images, texts (B, E) of unit norm, caption_ids (B,) with -1 for "has no caption" -> scalar.

        Every rank returns the loss of the whole batch; the gradient is right after averaging over ranks.
        """
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        rank = dist.get_rank() if world > 1 else 0
        clip = _open_clip().loss.ClipLoss(local_loss=False, gather_with_grad=True, rank=rank, world_size=world)
        scale = logit_scale.exp().clamp(max=self.logit_scale_max)
        per_image, _ = clip.get_logits(images.float(), texts.float(), scale)
        ids = caption_ids
        if world > 1:
            gathered = [torch.empty_like(ids) for _ in range(world)]
            dist.all_gather(gathered, ids.contiguous())
            ids = torch.cat(gathered)
        valid = ids >= 0
        same = (ids[:, None] == ids[None]) & valid[:, None] & valid[None]
        per_image = per_image.float()  # float16 has no -1e9
        logits = per_image.masked_fill(~valid[None], -1e9).masked_fill(~valid[:, None], -1e9)
        target = same / same.sum(1, keepdim=True).clamp(min=1)
        rows = -(target * logits.log_softmax(1)).sum(1) - (target * logits.T.log_softmax(1)).sum(1)
        return (rows * valid).sum() / (2 * valid.sum().clamp(min=1))
