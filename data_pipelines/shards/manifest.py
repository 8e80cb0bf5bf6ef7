"""`dataset.json`: what a folder of shards holds. Written last, so that a folder with it is complete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import read_json, write_json

FILE = "dataset.json"
SCHEMA_VERSION = 1
NAMED_DROPS = 100  # dropped samples named in dataset.json; each shard's index names all of its own

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]  # no path leaves the folder
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class ShardInfo(Config):
    """One tar and its sidecar `<stem>.index.json`, which holds the offsets of its members."""

    file: FileName
    samples: Count
    bytes: Count
    sha256: Sha256
    index_sha256: Sha256

    @property
    def index_file(self) -> str:
        return index_name(self.file)


class Dropped(Config):
    source: str
    reason: str
    detail: str = ""


class SplitInfo(Config):
    samples: Count
    shards: tuple[ShardInfo, ...]
    dropped: Mapping[str, Count] = {}  # reason -> number of samples
    dropped_samples: tuple[Dropped, ...] = ()  # the first NAMED_DROPS of them
    notes: Mapping[str, Count] = {}  # what was changed and how often, e.g. captions shortened


class Manifest(Config):
    """All of `dataset.json`."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["images", "latents"]
    name: str
    image_size: int | None = None  # pixels, square
    levels: Count = 0  # most captions that an image has
    level_names: tuple[str, ...] = ()
    level_labels: tuple[tuple[str, ...], ...] = ()
    levels_made: Mapping[str, Any] = {}  # how the source's captions became levels
    labels: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = {}  # label -> words of its classes; absent for plain numbers
    splits: Mapping[str, SplitInfo]
    source: Mapping[str, Any] = {}  # where the data came from and with which settings
    latent_spec: Mapping[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Equal for equal content: changes when a shard, a class or the latent spec does."""
        return fingerprint.of_value(self.model_dump(mode="json"))

    def split(self, name: str, folder: Path) -> SplitInfo:
        if name not in self.splits:
            raise DataError(f"{folder}: no split {name!r}; there are {', '.join(sorted(self.splits))}")
        return self.splits[name]


def index_name(shard: str) -> str:
    return shard.removesuffix(".tar") + ".index.json"


def read_manifest(folder: Path) -> Manifest:
    """Raises DataError when `folder`/dataset.json is missing, damaged or of a newer version."""
    path = Path(folder) / FILE
    if not path.is_file() and Path(folder).is_dir():
        raise DataError(f"{folder}: no {FILE}; the folder is not a finished data set")
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: schema version {version!r}, this seqtok reads {SCHEMA_VERSION}")
    if "tables" in content:
        raise DataError(
            f"{folder}: holds {content.get('kind')} as {content.get('format')} files, which are not trained on; "
            "latents for training are exported as webdataset shards"
        )
    try:
        return Manifest.parse(content, str(path))
    except ConfigError as error:
        raise DataError(str(error)) from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(Path(folder) / FILE, manifest.model_dump(mode="json"))
