"""What the bottlenecks with a codebook share: entries of vector-quantize-pytorch, their use, and the way back.

Codebooks are plain parameters that gradients train: all ranks keep the same one without a word, a resumed run has it
to the bit, and no global random numbers are drawn, as its moving averages with revived entries would.
Shapes: B images, K tokens, W width, D channels, V entries, Q codes per token.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from seq_tokenizer.bottlenecks.base import Bottled, Bottleneck
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws


def vector_quantize_pytorch() -> Any:
    """The library. Raises ConfigError that says how to install it."""
    try:
        import vector_quantize_pytorch as library
    except ImportError:
        raise ConfigError(
            "discrete bottlenecks need the library vector-quantize-pytorch: pip install 'seqtok[vq]'"
        ) from None
    return library


class DiscreteBottleneck(Bottleneck):
    """Linear to D channels, then the nearest of V entries; the gradient passes as if nothing had been rounded."""

    MUON_EXCLUDED: tuple[str, ...] = ()
    codebook_size: int  # V

    def __init__(self, shape: TokenizerShape) -> None:
        super().__init__()
        self.dim = shape.latent_dim
        self.project = nn.Linear(shape.width, shape.latent_dim)

    @abstractmethod
    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x (B, K, D) float32 -> z (B, K, D), codes as `Bottled` has them, what training owes for the rounding."""

    @abstractmethod
    def look_up(self, codes: Tensor) -> Tensor:
        """codes (B, k), or (B, k, Q) with Q > 1 -> z (B, k, D) float32."""

    def entries(self) -> Tensor:
        """-> (Q, V, D) float32: a latent is an entry, or the sum of one entry of each of Q codebooks."""
        every = torch.arange(self.codebook_size, device=self.project.weight.device)
        return self.look_up(every[None])

    def forward(self, h: Tensor, draws: Draws | None) -> Bottled:
        x = self.project(h).float()
        with torch.autocast(x.device.type, enabled=False):
            z, codes, loss = self.quantise(x)
        losses = {} if loss is None or draws is None else {"commitment_loss": loss}
        shown = {} if draws is None else codebook_use(codes, self.codebook_size)
        return Bottled(z, codes, self.bits(codes.shape[1]), losses, shown)

    def bits(self, length: int) -> float:
        return length * self.codes_per_token * math.log2(self.codebook_size)


@torch.no_grad()
def codebook_use(codes: Tensor, size: int) -> dict[str, Tensor]:
    """How many of the V entries the codes of a batch name, as a share, and how many evenly used ones would carry as
    much (perplexity)."""
    share = torch.bincount(codes.flatten(), minlength=size) / codes.numel()
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return {"codebook_used": (share > 0).float().mean(), "codebook_perplexity": entropy.exp()}
