"""Text beside every prefix: the open_clip text tower, a causal readout of latents, and their contrastive loss.

The only file that imports open_clip. Equal captions inside a batch are positives of each other (coarse captions
repeat), so the target of CLIP's softmax is uniform over all of them instead of one (as in UniCL, arXiv:2204.03610).

Shapes: B images, K latents, D channels, E shared space, T text tokens.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seq_tokenizer.shape import Positive
from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError

# Shapes that text comes in are rounded up to multiples of these: every new shape makes torch's CPU library compile
# and keep its kernels anew (the demo's memory grew from 0.75 to 1.2 GiB in 300 steps), and CUDA's allocator split.
_ROWS, _TOKENS = 16, 8
BOS, EOS = 2, 3  # data_pipelines.captions.tokenizer fixes the ids; a test holds them equal
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


class TextConfig(Config):
    """The open_clip text tower and the space that it shares with prefixes."""

    vocab_size: Positive | None = None  # None: filled in from the captions model when a run is built
    context: Positive = 48  # text tokens, <eos> included
    width: Positive = 128
    layers: Positive = 2
    heads: Positive = 4
    embed_dim: Positive = 64  # E


class TextTower(nn.Module):
    """open_clip's TextTransformer, bidirectional with padding masked, read at <eos>."""

    MUON_EXCLUDED = ("tower.token_embedding.weight", "tower.positional_embedding", "tower.text_projection")

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ConfigError("`text.vocab_size` is not set: it must be that of the captions model")
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
