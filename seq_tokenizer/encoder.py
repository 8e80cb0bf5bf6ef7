"""Image -> ordered tokens. In both encoders token i is a function of the image and of tokens < i alone.

So encoding with fewer queries gives exactly the first tokens of the whole sequence. Positions of patches are
fixed sine-cosine features of unit scale, in patches from the corner: other sizes and shapes of picture can be
encoded. Query embeddings start at std 1: at the usual 0.02 they drown in the content.

Shapes: B images, N patches, p patch size, K queries, W width.
Sources: TiTok (Yu et al. 2024, arXiv:2406.07550); Q-Former (BLIP-2, Li et al. 2023, arXiv:2301.12597).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq_tokenizer.config import TokenizerConfig
from seqtok_core.layers.blocks import Block, causal_mask, init_linear, readout_mask
from seqtok_core.layers.embed import grid_positions, patchify, sincos


def patch_positions(config: TokenizerConfig, rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows * columns, W) position features; the longest wavelength is four sides of a training picture."""
    longest = 4.0 * max(config.image_size // config.patch_size, 2)
    return sincos(grid_positions(rows, columns).to(device), config.width, longest)


class PatchInput(nn.Module):
    """Raw pixels, cut into patches and projected orthogonally: nothing is lost where W >= 3 p^2.

    A small MLP over the same raw pixels is added: it sees edges and corners before they are narrowed to W.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config, self.patch = config, config.patch_size
        values, width = 3 * self.patch**2, config.width
        self.project = nn.Linear(values, width)
        self.corners = nn.Sequential(nn.Linear(values, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        nn.init.orthogonal_(self.project.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, W)."""
        rows, columns = pixels.shape[-2] // self.patch, pixels.shape[-1] // self.patch
        where = patch_positions(self.config, rows, columns, pixels.device)
        patches = patchify(pixels, self.patch)
        return self.project(patches) + self.corners(patches) + where.to(pixels.dtype)


class TitokEncoder(nn.Module):
    """Patches and queries in one stack of self-attention, under a mask that is causal among the queries."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.patches = PatchInput(config)
        self.queries = nn.Parameter(torch.randn(config.num_latents, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, i) for i in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        init_linear(self.blocks, config.encoder_layers)

    def forward(self, pixels: Tensor, num_tokens: int | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, k, W), k = num_tokens or K."""
        patches, queries = self.patches(pixels), self.queries[:num_tokens]
        x = torch.cat([patches, queries.expand(len(pixels), -1, -1).to(patches.dtype)], 1)
        mask = readout_mask(patches.shape[1], len(queries), x.device)
        for block in self.blocks[:-1]:
            x = block(x, mask)
        return self.norm(self.blocks[-1](x, mask, rows=slice(patches.shape[1], None)))  # patches end here


class QFormerEncoder(nn.Module):
    """A Transformer over the patches, then queries with causal self-attention that cross-attend to them.

    The layers are shared out evenly: the first half over the patches, the second over the queries.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        trunk = max(config.encoder_layers // 2, 1)
        readers = max(config.encoder_layers - trunk, 1)
        self.patches = PatchInput(config)
        self.queries = nn.Parameter(torch.randn(config.num_latents, config.width))
        self.trunk = nn.ModuleList(Block(config.width, config.heads, i) for i in range(trunk))
        self.norm_trunk = nn.LayerNorm(config.width, bias=False)
        self.readers = nn.ModuleList(Block(config.width, config.heads, i, cross=True) for i in range(readers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        init_linear(self.trunk, config.encoder_layers)
        init_linear(self.readers, config.encoder_layers)

    def forward(self, pixels: Tensor, num_tokens: int | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, k, W), k = num_tokens or K."""
        context = self.patches(pixels)
        for block in self.trunk:
            context = block(context)
        context = self.norm_trunk(context)
        x = self.queries[:num_tokens].expand(len(pixels), -1, -1).to(context.dtype)
        mask = causal_mask(x.shape[1], x.device)
        for block in self.readers:
            x = block(x, mask, context=context)
        return self.norm(x)


def build_encoder(config: TokenizerConfig) -> nn.Module:
    return TitokEncoder(config) if config.encoder == "titok" else QFormerEncoder(config)
