"""Before a sequence model is trained: are these latents, their captions model and their tokenizer of one making?

Shapes: K latents, D channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.shards.latent_check import LIMIT, Statistics
from data_pipelines.shards.latents import LATENT, load_array
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import open_shards
from seqtok_core.foundation.errors import DataError, MismatchError

_LOOKED_AT = 512  # latents, evenly over the split


def require_export(folder: Path, split: str, captions: CaptionTokenizer) -> None:
    """Raises MismatchError when captions.model is not the one of the export (both fingerprints named), DataError
    when latents are not what dataset.json says: not finite, or further from their mean than any that was exported.
    """
    manifest = read_manifest(folder)
    recorded = manifest.source.get("latents", {}).get("captions_sha256")
    if recorded is not None and recorded != captions.sha256:
        raise MismatchError(
            f"{folder}/captions.model has sha256 {captions.sha256}, these latents were exported with captions model "
            f"{recorded}; put that file back, or export again with the tokenizer that belongs to this one"
        )
    statistics = Statistics.from_spec(manifest.latent_spec or {}, f"{folder}/dataset.json")
    allowed = max(LIMIT, manifest.source.get("check", {}).get("largest_z", 0.0)) * 1.001
    shards = open_shards(folder, split, on_bad_shard="skip", kind="latents")
    count = min(len(shards), _LOOKED_AT)
    for index in np.linspace(0, len(shards) - 1, count).astype(int).tolist():
        place = shards.place(index)
        latents = load_array(shards.read(index, (LATENT,)), place)
        if latents.shape != statistics.mean.shape or not np.isfinite(latents).all():
            raise DataError(f"{place}: latents are not finite {statistics.mean.shape} arrays; export them again")
        worst = float(np.abs(statistics.standardised(latents[None])).max())
        if worst > allowed:
            raise DataError(
                f"{place}: a latent lies {worst:.1f} standard deviations from the mean in dataset.json, the export "
                f"saw at most {allowed:.1f}; the latents or their statistics were changed: export them again"
            )
    shards.close()
