"""Which weights Muon must not touch: each module names its own, and whoever trains collects them.

Muon makes the update of a matrix orthogonal, which suits maps between features. Rows that are looked up or added
(embeddings, queries, positions) and maps from or to data are not such maps (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/).
"""

from __future__ import annotations

from torch import nn


def excluded_from_muon(module: nn.Module) -> set[str]:
    """Full names of the weights that `module` and all modules in it list in their class's MUON_EXCLUDED."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        for name in getattr(part, "MUON_EXCLUDED", ())
    }
