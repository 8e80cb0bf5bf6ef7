"""Text beside every prefix: the open_clip text tower, a causal readout of latents, and their contrastive loss.

The only file that imports open_clip. Equal captions inside a batch are positives of each other (coarse captions
repeat), so the target of CLIP's softmax is uniform over all of them instead of one (as in UniCL, arXiv:2204.03610).

Shapes: B images, K latents, D channels, E shared space, T text tokens.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seq_tokenizer.config import TextConfig
from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.errors import ConfigError

# Shapes that text comes in are rounded up to multiples of these: every new shape makes torch's CPU library compile
# and keep its kernels anew (the demo's memory grew from 0.75 to 1.2 GiB in 300 steps), and CUDA's allocator split.
_ROWS, _TOKENS = 16, 8
EOS = 3  # data_pipelines.captions fixes the ids; a test holds them equal
PAD = 0


def _open_clip() -> Any:
    prepare_torchvision()
    import open_clip

    return open_clip


def _plain_attention(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """On CPU torch's fused attention is several times slower backward in bfloat16 than its plain form."""
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return sdpa_kernel(SDPBackend.MATH)
    return contextlib.nullcontext()


class TextTower(nn.Module):
    """open_clip's TextTransformer, bidirectional with padding masked, read at <eos>."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ConfigError("model.text.vocab_size is not set: it must be that of the captions model")
        self.context = config.context
        self.tower = _open_clip().transformer.TextTransformer(
            context_length=config.context,
            vocab_size=config.vocab_size,
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            output_dim=config.embed_dim,
            no_causal_mask=True,
            use_pad_mask=True,
            pad_id=PAD,
            eos_id=EOS,
            pool_type="eos",
        )
        nn.init.normal_(self.tower.token_embedding.weight, std=0.5)
        nn.init.normal_(self.tower.positional_embedding, std=0.5)

    def forward(self, text_ids: Tensor) -> Tensor:
        """text_ids (B, T) int64, content padded with 0 -> (B, E) of unit norm.

        Equal rows, of which coarse captions have many, are computed once. Rows without text fill up the batch.
        """
        rows, back = torch.unique(text_ids, dim=0, return_inverse=True)
        lengths = (rows != PAD).sum(1)
        if int(lengths.max()) >= self.context:
            raise ConfigError(
                f"a caption has {int(lengths.max())} tokens, the text tower takes {self.context - 1}; "
                "read the captions with a smaller max_tokens"
            )
        length = min(-(-(int(lengths.max()) + 1) // _TOKENS) * _TOKENS, self.context)
        rows = rows[:, :length]
        rows = F.pad(rows, (0, length - rows.shape[1], 0, -len(rows) % _ROWS), value=PAD)
        rows = rows.scatter(1, (rows != PAD).sum(1, keepdim=True), EOS)
        with _plain_attention(rows.device):
            return F.normalize(self.tower(rows).float(), dim=-1)[back]


class PrefixReadout(nn.Module):
    """Embeddings of all prefixes in one pass: a running sum of per-position maps, then a small residual MLP.

    The linear path keeps early latents linearly readable; the MLP sees sums over the prefix only, so it is causal.
    """

    def __init__(self, length: int, dim: int, embed_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.randn(length, dim, embed_dim) * dim**-0.5)
        self.lift = nn.Parameter(torch.randn(length, dim, hidden) * dim**-0.5)
        self.start = nn.Parameter(torch.zeros(length, hidden))
        self.norm = nn.LayerNorm(hidden, bias=False)
        last = nn.Linear(hidden, embed_dim)
        nn.init.zeros_(last.weight)
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), last)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, k, D) -> (B, k, E) of unit norm; entry i speaks of latents 0..i."""
        k = latents.shape[1]
        plain = torch.einsum("bkd,kde->bke", latents, self.linear[:k]).cumsum(1)
        lifted = (torch.einsum("bkd,kdh->bkh", latents, self.lift[:k]) + self.start[:k]).cumsum(1)
        return F.normalize(plain + self.mlp(self.norm(lifted)), dim=-1)


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
