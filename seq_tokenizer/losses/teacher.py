"""The encoder's patches, half way up, say what a frozen image tower says of the same places.

REPA (Yu et al. 2024, arXiv:2410.06940): a small MLP leads from the states to the tower's features, and the loss is
1 - their mean cosine. The patches are aligned and not the latents: aligning 1-D tokens to a teacher's patches hurt
(EOSTok). Where the two grids differ, the tower's is interpolated to the encoder's.

Shapes: B images, N patches in r rows and c columns, W width, C channels of the tower, h x w its places.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.config import TokenizerConfig
from seq_tokenizer.losses.base import Term, View
from seq_tokenizer.losses.frozen import FrozenConfig, FrozenNetwork
from seq_tokenizer.shape import Positive
from seqtok_core.foundation.errors import ConfigError


class TeacherConfig(FrozenConfig):
    weight: Annotated[float, Field(ge=0)] = 0.5
    hidden: Positive = 512  # width of the MLP


class TeacherTerm(Term):
    reads: ClassVar[frozenset[str]] = frozenset({"encoder"})
    MUON_EXCLUDED = ("project.4.weight",)  # to data

    def __init__(self, config: TeacherConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        if len(config.layers) != 1:
            raise ConfigError(f"`teacher.layers` {list(config.layers)}: one layer is aligned; name one")
        self.config, self.patch = config, tokenizer.patch_size
        self.network = FrozenNetwork(config, "teacher", normed=True)
        (channels,) = self.network.channels(tokenizer.image_size)
        self.project = nn.Sequential(
            nn.Linear(tokenizer.width, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, channels),
        )

    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        said = self.project(view.state("encoder patches", "teacher")).float()  # (B, N, C)
        grid = [side // self.patch for side in view.pixels.shape[-2:]]
        with torch.no_grad():
            (wanted,) = self.network(view.pixels)
        loss = 1 - F.cosine_similarity(said, _on_grid(wanted.float(), grid), dim=-1).mean()
        return self.config.weight * loss, {"teacher_loss": loss.detach()}


def _on_grid(maps: Tensor, grid: list[int]) -> Tensor:
    """(B, C, h, w) -> (B, r c, C), row by row."""
    if list(maps.shape[-2:]) != grid:
        maps = F.interpolate(maps, grid, mode="bilinear", antialias=True)
    return maps.flatten(2).transpose(1, 2)
