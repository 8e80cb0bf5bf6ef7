"""Whether the borders of patches show: how much more a picture changes across them than elsewhere.

Shapes: B pictures, p patch size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqtok_core.foundation.errors import ConfigError


def seam_ratio(pictures: Tensor, originals: Tensor, patch: int) -> float:
    """Two (B, 3, H, W) uint8 -> 1 where borders of patches stand out no more than in the originals, above 1 seams.

    Gradient energy across the borders relative to that elsewhere, divided by the same ratio of the originals: their
    shapes, too, may lie on borders. Energies are summed over all pictures first, of which some are nearly plain.
    """
    if patch < 2 or max(pictures.shape[-2:]) <= patch:
        raise ConfigError(f"patches of {patch} in pictures of {tuple(pictures.shape[-2:])}: no border, or nothing else")
    return _across(pictures, patch) / _across(originals, patch)


def _across(pictures: Tensor, patch: int) -> float:
    """Mean squared difference of neighbours on both sides of a border over that of neighbours within a patch."""
    border, inside = [], []
    for axis in (-2, -1):
        change = pictures.float().diff(dim=axis).square().movedim(axis, 0).flatten(1).double().mean(1)
        at_border = (torch.arange(len(change), device=change.device) + 1) % patch == 0
        border.append(change[at_border])
        inside.append(change[~at_border])
    return float(torch.cat(border).mean() / torch.cat(inside).mean().clamp(min=1e-12))
