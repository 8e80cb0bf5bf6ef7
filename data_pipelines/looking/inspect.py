"""What a folder of shards holds: data sets of ours and foreign tars. Whether it is whole says `verify`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.looking.inspect_split import SplitOverview, inspect_split
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.shards import manifest as manifests
from data_pipelines.shards.manifest import Manifest
from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.sources.records import Fields
from data_pipelines.tars.names import find_tars
from seqtok_core.foundation.errors import DataError

SAMPLES = 10_000  # of a split that are looked at, evenly over it


@dataclass(frozen=True, kw_only=True)
class Overview:
    folder: Path
    own: bool  # has a dataset.json
    kind: str
    name: str
    image_size: int | None
    levels: int
    level_names: tuple[str, ...] = ()
    made: dict[str, Any] = field(default_factory=dict)  # how the levels were made, from what, with which settings
    fingerprint: str
    splits: tuple[SplitOverview, ...]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def overview(
    folder: Path, fields: Fields | None = None, samples: int = SAMPLES, max_bad_share: float = MAX_BAD_SHARE
) -> Overview:
    """Looks at `samples` of each split, evenly over it (0: at all). Raises DataError when there is no data set, a
    shard is damaged, or more samples of foreign tars are bad than allowed."""
    folder = Path(folder)
    own = own_manifest(folder)
    kind = own.kind if own else "images"
    words = CaptionTokenizer.load(folder / CAPTIONS_FILE) if (folder / CAPTIONS_FILE).is_file() else None
    parts = []
    for split in sorted(own.splits) if own else sorted(find_tars(folder)):
        shards = open_shards(folder, split, fields, kind=kind, max_bad_share=max_bad_share)
        parts.append(inspect_split(shards, split, own, words, samples))
        shards.close()
    return Overview(
        folder=folder,
        own=own is not None,
        kind=kind,
        name=own.name if own else folder.name,
        image_size=own.image_size if own else None,
        levels=own.levels if own else max(len(part.levels) for part in parts),
        level_names=own.level_names if own else (),
        made=_made(own) if own else {},
        fingerprint=own.fingerprint if own else "",
        splits=tuple(parts),
    )


def own_manifest(folder: Path) -> Manifest | None:
    """dataset.json where there is one. Raises DataError when the folder does not exist."""
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    return manifests.read_manifest(folder) if (folder / manifests.FILE).is_file() else None


def _made(own: Manifest) -> dict[str, Any]:
    spec = {name: value for name, value in (own.latent_spec or {}).items() if name not in ("mean", "std")}
    return {"levels": dict(own.levels_made), "source": dict(own.source), **({"latents": spec} if spec else {})}
