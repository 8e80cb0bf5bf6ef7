"""The folder that users pass around: config.json + model.safetensors (+ captions.model + README.md). No pickles.

config.json is written last: a folder without it is not a model yet. It holds the sha256 of model.safetensors, which
is compared on loading; models that were written before have none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqtok_core.foundation import faults
from seqtok_core.foundation.errors import DataError, MismatchError
from seqtok_core.foundation.files import atomic_write, leftovers_of, read_json, sha256_file, write_json

CONFIG, WEIGHTS, CAPTIONS, CARD = "config.json", "model.safetensors", "captions.model", "README.md"
MODEL_FILES = (CONFIG, WEIGHTS, CAPTIONS, CARD)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model_folder(path: Path | str) -> Path:
    """A local folder, or the local copy of a hub id. Raises DataError when it is neither."""
    local = Path(path)
    if (local / CONFIG).is_file():
        return local
    if local.is_dir():
        raise DataError(f"{path}: not a model folder ({CONFIG} is missing)")
    if local.exists() or not _HUB_ID.fullmatch(str(path)):
        raise DataError(f"{path}: no such model folder (and not a hub id such as owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path), allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: no such folder, and the hub did not give it ({reason})") from None


def write_model_folder(
    folder: Path, kind: str, version: int, parts: Mapping[str, Any], weights: Mapping[str, Any], card: str
) -> None:
    """`parts` are the sections of config.json, `weights` the tensors by name."""
    from safetensors.torch import save

    for leftover in _leftovers(folder):
        leftover.unlink(missing_ok=True)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    with atomic_write(folder / WEIGHTS) as stream:
        stream.write(content)
        faults.hit("weights.before_rename")
    with atomic_write(folder / CARD, "w") as stream:
        stream.write(card)
    written = hashlib.sha256(content).hexdigest()
    write_json(folder / CONFIG, {"kind": kind, "format": version, "weights_sha256": written, **parts})


def is_free(folder: Path) -> bool:
    """Whether a model may be written there: nothing is in it but what killed writers of a model have left."""
    return not folder.exists() or (folder.is_dir() and set(folder.iterdir()) <= set(_leftovers(folder)))


def _leftovers(folder: Path) -> list[Path]:
    return [left for name in MODEL_FILES for left in leftovers_of(folder / name)]


def read_config(folder: Path, kind: str, version: int) -> dict[str, Any]:
    """The sections of config.json. Raises DataError when it is of another kind or format."""
    where = folder / CONFIG
    parts = read_json(where)
    if not isinstance(parts, dict) or parts.get("kind") != kind:
        found = parts.get("kind") if isinstance(parts, dict) else None
        raise DataError(f"{where}: this is not a {kind}" + (f" but a {found}" if found else ""))
    if parts.get("format") != version:
        raise DataError(f"{where}: format {parts.get('format')!r}; this version of seqtok reads format {version}")
    return parts


def read_section(parts: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    section = parts.get(name)
    if not isinstance(section, dict):
        raise DataError(f"{folder / CONFIG}: the part {name!r} is missing")
    return section


def load_weights(module: Any, folder: Path) -> None:
    """Load model.safetensors strictly. Raises DataError when it is missing, damaged, or does not fit."""
    import safetensors
    from safetensors.torch import load_file

    where = folder / WEIGHTS
    try:
        module.load_state_dict(load_file(where))
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{where}: cannot be read ({error})") from None
    except RuntimeError as error:
        last = str(error).splitlines()[-1].strip()
        raise DataError(f"{where}: does not fit {CONFIG} ({last})") from None
    _require_unchanged(where, read_json(folder / CONFIG).get("weights_sha256"))


def _require_unchanged(path: Path, recorded: str | None) -> None:
    if recorded is not None and sha256_file(path) != recorded:
        raise DataError(
            f"{path}: its content has changed since it was written (sha256 in {CONFIG}); it is damaged, or another "
            "model's: put the original file back"
        )


def require_captions(folder: Path, recorded: str | None) -> None:
    """Raise MismatchError where the folder's captions model is not the one recorded; one that is missing, or that
    nobody recorded, is nobody's matter yet."""
    path = folder / CAPTIONS
    if recorded is None or not path.is_file():
        return
    found = sha256_file(path)
    if found != recorded:
        raise MismatchError(
            f"{path}: has sha256 {found}, this tokenizer was trained with captions model {recorded}; "
            "put the original file back"
        )
