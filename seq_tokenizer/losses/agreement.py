"""Long and short prefixes agree: after the decoder's first layer, what k latents made resembles what all of them made.

f = (mean of the latents' states, the patches' states); the loss is 1 - mean cos(f(k), f(K)), and only the short side
learns. Source: NesTok's alignment, with weight 1. The k are those of the pictures.

Shapes: B images, K latents, N patches, W width.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seqtok_core.foundation.config import Config


class AgreementConfig(Config):
    weight: Annotated[float, Field(ge=0)] = 1.0


class AgreementTerm(Term):
    reads: ClassVar[frozenset[str]] = frozenset({"decoder"})
    needs_pictures: ClassVar[bool] = True

    def __init__(self, config: AgreementConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        patches = view.state("decoder patches", "agreement").float()
        latents = view.state("decoder latents", "agreement").float()
        short, whole = latents.chunk(2)
        kept = torch.arange(short.shape[1], device=short.device) < view.prefix[:, None]
        mean = (short * kept[..., None]).sum(1) / view.prefix[:, None]  # absent ones say nothing
        short_patches, whole_patches = patches.chunk(2)
        short_f = torch.cat([mean[:, None], short_patches], 1)
        whole_f = torch.cat([whole.mean(1, keepdim=True), whole_patches], 1)
        loss = 1 - F.cosine_similarity(short_f, whole_f.detach(), dim=-1).mean()
        return self.config.weight * loss, {"agreement_loss": loss.detach()}
