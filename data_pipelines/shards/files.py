"""One shard on disk: a tar that any webdataset reader reads, and a sidecar index with its hash and offsets.

The tar is renamed into place first, its index second: a shard with a matching index is committed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.shards.manifest import ShardInfo, index_name
from data_pipelines.tars.index import TarSample
from data_pipelines.tars.write import write_tar
from seqtok_core.foundation import faults
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import atomic_write, read_json, sha256_file
from seqtok_core.foundation.fingerprint import canonical_json

INDEX_VERSION = 1
# As atomic_write names what will be a shard, a part, an index, or a file beside them.
_HALF = re.compile(r"\.(.+-[a-z]+-\d{6}\..+|dataset\.json|prepare\.json|captions\.model)\.\w+\.tmp")


def shard_name(name: str, split: str, number: int) -> str:
    return f"{name}-{split}-{number:06d}.tar"


def commit_shard(
    folder: Path,
    file: str,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    *,
    task: str,
    facts: Mapping[str, Any],
    before_rename: Callable[[], None] = lambda: None,
) -> ShardInfo:
    """Write (key, {extension: content}) pairs as `folder`/`file`. Equal input gives equal bytes.

    `task` names the work that the shard is the result of; `facts` is JSON kept in the index, read when the last
    sample has been taken. One sample is held in memory at a time. What `before_rename` raises leaves nothing behind.
    Raises DataError for a key that is unsafe or comes twice, StorageError when the disk is full.
    """
    faults.hit("shards.before_tar")
    with atomic_write(folder / file) as stream:
        tar = write_tar(stream, samples, file)
        faults.hit("shards.before_rename")
        before_rename()
    content = {
        "schema_version": INDEX_VERSION,
        "shard": file,
        "bytes": tar.bytes,
        "sha256": tar.sha256,
        "task": task,
        "facts": dict(facts),
        "samples": [[sample.key, sample.members] for sample in tar.samples],
    }
    faults.hit("shards.before_index")
    sidecar = canonical_json(content).encode() + b"\n"
    with atomic_write(folder / index_name(file)) as stream:
        stream.write(sidecar)
    faults.hit("shards.after_index")
    return _info(content, hashlib.sha256(sidecar).hexdigest())


def is_committed(folder: Path, file: str, task: str) -> bool:
    """Whether the shard is there, whole, and the result of this task. Reads all of it."""
    return find_committed(folder, file, task) is not None


def find_committed(folder: Path, file: str, task: str) -> tuple[ShardInfo, dict[str, Any]] | None:
    """A shard that is there, whole, and the result of this task, with the facts of its index; else None."""
    path = folder / file
    try:
        index = read_index(folder, file)
    except DataError:
        return None
    if index["task"] != task or not path.is_file() or path.stat().st_size != index["bytes"]:
        return None
    if sha256_file(path) != index["sha256"]:
        return None
    return _info(index, sha256_file(folder / index_name(file))), index["facts"]


def shard_info(folder: Path, file: str) -> ShardInfo:
    return _info(read_index(folder, file), sha256_file(folder / index_name(file)))


def read_index(folder: Path, file: str) -> dict[str, Any]:
    """The sidecar's content. Raises DataError when it is missing, damaged or belongs to another shard."""
    path = Path(folder) / index_name(file)
    index = read_json(path)
    known = {"schema_version", "shard", "bytes", "sha256", "task", "facts", "samples"}
    if not isinstance(index, dict) or set(index) != known or index["schema_version"] != INDEX_VERSION:
        raise DataError(f"{path}: not a shard index of version {INDEX_VERSION}")
    if index["shard"] != file:
        raise DataError(f"{path}: belongs to {index['shard']!r}, not to {file}")
    return index


def index_samples(index: Mapping[str, Any], path: Path) -> list[TarSample]:
    """Samples of a sidecar index, with every span inside the shard. Raises DataError otherwise."""
    samples = []
    try:
        for key, members in index["samples"]:
            spans = {str(extension): (int(start), int(size)) for extension, (start, size) in members.items()}
            if any(start < 0 or size < 0 or start + size > index["bytes"] for start, size in spans.values()):
                raise DataError(f"{path}: {key} lies outside its shard")
            samples.append(TarSample(str(key), spans))
    except (TypeError, ValueError, AttributeError):
        raise DataError(f"{path}: damaged shard index; build the shard again") from None
    return samples


def sweep(folder: Path) -> int:
    """Remove what a killed writer left half written. Returns the number of files."""
    left = [path for path in folder.glob(".*.tmp") if path.is_file() and _HALF.fullmatch(path.name)]
    for path in left:
        path.unlink()
    return len(left)


def json_member(value: Mapping[str, Any]) -> bytes:
    return _JSON.encode(value).encode()


_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False)


def _info(index: Mapping[str, Any], index_sha256: str) -> ShardInfo:
    return ShardInfo(
        file=index["shard"],
        samples=len(index["samples"]),
        bytes=index["bytes"],
        sha256=index["sha256"],
        index_sha256=index_sha256,
    )
