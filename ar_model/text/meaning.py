"""A prompt without words: what the tokenizer says that a picture shows, as one token.

Drawing a picture anew from its own embedding (RecA, arXiv:2509.07295) asks for all that the embedding knows, where a
caption leaves most of it open; and it needs no captions.
Shapes: B pictures, K latents of D channels, E entries of an embedding, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_STD = 0.5  # of the token, as of words


class Meaning(nn.Module):
    """The token. What embeds is of the tokenizer, which stays as it is: nothing of it is trained or saved here."""

    MUON_EXCLUDED = ("word_in.weight",)

    def __init__(self, embed: Callable[[Tensor], Tensor], dim: int, width: int) -> None:
        """`embed`: latents (B, K, D), as the tokenizer's `encode` gives them -> (B, E) of unit norm; `dim` E."""
        super().__init__()
        self._embed = embed
        self.word_in = nn.Linear(dim, width, bias=False)
        nn.init.normal_(self.word_in.weight, std=_STD)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, K, D) -> (B, W)."""
        with torch.no_grad():
            meaning = self._embed(latents)
        return self.word_in(meaning.to(self.word_in.weight.dtype))
