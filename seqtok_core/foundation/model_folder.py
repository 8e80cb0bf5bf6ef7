"""The folder that users pass around: config.json + model.safetensors (+ captions.model + README.md). No pickles.

config.json is written last: a folder without it is not a model yet. It holds the sha256 of model.safetensors, which
is compared on loading; models that were written before have none.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypedDict, Unpack

from seqtok_core.foundation import faults
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError, SeqtokError
from seqtok_core.foundation.files import (
    atomic_write,
    is_log,
    leftovers_of,
    read_json,
    refuse_lfs_pointer,
    require_place,
    sha256_file,
    write_json,
)

CONFIG, WEIGHTS, CAPTIONS, CARD = "config.json", "model.safetensors", "captions.model", "README.md"
MODEL_FILES = (CONFIG, WEIGHTS, CAPTIONS, CARD)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: Path | str) -> bool:
    """Whether a name that is no folder here can be one of the hub. A Path never is, nor `a/b` beside a folder `a`."""
    return isinstance(name, str) and _HUB_ID.fullmatch(name) is not None and not Path(name).parent.exists()


class HubOptions(TypedDict, total=False):
    """How the hub is asked; what is not said is as the hub's own library has it."""

    revision: str | None  # branch, tag or commit
    token: str | bool | None
    cache_dir: Path | str | None


def find_model_folder(path: Path | str, **hub: Unpack[HubOptions]) -> Path:
    """A local folder, or the local copy of a hub id. Where the hub is out of reach a copy that is there already is
    used, with a warning. Raises DataError when `path` is neither, ConfigError for a local folder's revision."""
    local = Path(path)
    asked: Any = {key: value for key, value in hub.items() if value is not None}
    if local.exists() and "revision" in asked:
        raise ConfigError(f"revision={asked['revision']}: {path} is a folder of this machine; only the hub has several")
    if (local / CONFIG).is_file():
        return local
    if local.is_dir():
        raise DataError(f"{path}: not a model folder ({CONFIG} is missing)")
    if local.exists():
        raise DataError(f"{path}: a file; name the model folder that holds {CONFIG}")
    if not is_hub_id(path):
        raise DataError(f"{path}: no such model folder (and not a hub id such as owner/name)")
    return fetch_folder(str(path), (CONFIG, WEIGHTS, CAPTIONS, CARD), **asked)


def fetch_folder(name: str, files: Sequence[str], **hub: Unpack[HubOptions]) -> Path:
    """The local copy of those files of a hub id, by name or pattern; where the hub is out of reach one that is there
    already, with a warning. Raises DataError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    asked: dict[str, Any] = {"allow_patterns": list(files), **hub}
    try:
        return Path(snapshot_download(name, **asked))
    except Exception as error:  # the hub's, the disk's, and those of its transport, which are no OSError
        reason = _first_line(error)
        answered = isinstance(error, LocalEntryNotFoundError | RepositoryNotFoundError | RevisionNotFoundError)
        if not answered:
            with contextlib.suppress(Exception):
                kept = Path(snapshot_download(name, local_files_only=True, **asked))
                warnings.warn(f"{name}: the hub cannot be asked ({reason}); the copy in {kept} is used", stacklevel=4)
                return kept
        raise DataError(f"{name}: no such folder, and the hub did not give it ({reason})") from None


def push_model(
    save: Callable[[Path], None],
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    message: str = "Model folder of seqtok",
) -> str:
    """Put what `save` writes into a folder on the hub, in one commit of the branch `revision`; a repository that is not
    there is made, `private` or not, and so is a branch. Returns the commit's address. Raises SeqtokError with the hub's
    reason."""
    from huggingface_hub import HfApi

    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"{name}: not a hub id such as owner/name")
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        try:
            hub = HfApi(token=token)
            hub.create_repo(name, private=private, exist_ok=True)
            if revision is not None:
                hub.create_branch(name, branch=revision, exist_ok=True)
            done = hub.upload_folder(repo_id=name, folder_path=folder, revision=revision, commit_message=message)
        except Exception as error:  # the hub's and those of its transport, which are no OSError
            raise SeqtokError(f"{name}: the hub did not take it ({_first_line(error)})") from None
    return str(done.commit_url)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


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


def require_free(folder: Path) -> None:
    """Raises ConfigError or StorageError unless a model may be written there: nothing is in it but logs, and what
    killed writers of a model have left."""
    require_place(folder, "folder")
    left = set(_leftovers(folder)) if folder.is_dir() else set()
    if folder.is_dir() and not all(entry in left or is_log(entry) for entry in folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty; choose another folder")


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


def load_model(build: Callable[[], Any], folder: Path, device: Any = None) -> Any:
    """The module that config.json describes with the weights beside it, in eval mode, on `device` (None: the CPU).

    What does not fit is refused before any memory is taken. Raises DataError naming the file that is wrong, ConfigError
    where this machine has no such device.
    """
    _require_fit(build, folder)
    module = build()
    load_weights(module, folder)
    try:
        return module.eval() if device is None else module.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(f"device={device}: {_first_line(error)}") from None


def _require_fit(build: Callable[[], Any], folder: Path) -> None:
    """Compare names and shapes of what config.json describes, built without memory, with those of the weights' file."""
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    there, made = _shapes(folder / WEIGHTS), count()
    limit = 2 * len(there) + 64  # a module may make a part and put another in its place

    def stop_at_too_many(*_: object) -> None:
        if next(made) > limit:
            raise RuntimeError(f"it describes more than {limit} tensors, the file holds {len(there)}")

    hook = register_module_parameter_registration_hook(stop_at_too_many)
    try:
        with torch.device("meta"):
            here = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except RuntimeError as error:  # torch's own: more values than it can count
        raise DataError(f"{folder / WEIGHTS}: does not fit {CONFIG} ({_first_line(error)})") from None
    finally:
        hook.remove()
    wrong = [name for name in (*here, *there) if here.get(name) != there.get(name)]
    if wrong:
        name = wrong[0]
        described, stored = (f"{shapes[name]}" if name in shapes else "none" for shapes in (here, there))
        more = f", and {len(set(wrong)) - 1} more" if len(set(wrong)) > 1 else ""
        raise DataError(
            f"{folder / WEIGHTS}: does not fit {CONFIG} ({name} of shape {stored} in the file, {described} described"
            f"{more})"
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a safetensors file, from its header. Raises DataError."""
    import safetensors

    refuse_lfs_pointer(path)
    try:
        with safetensors.safe_open(path, "pt") as stored:
            names = stored.keys()
            return {name: tuple(stored.get_slice(name).get_shape()) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def captions_of(folder: Path) -> Path:
    """The sentencepiece file of a model folder. Raises DataError where there is none."""
    path = folder / CAPTIONS
    if not path.is_file():
        raise DataError(
            f"{path}: is not there: the model was saved or copied without its words; copy the {CAPTIONS} of the data "
            "that it was trained on into the folder"
        )
    return path


def require_captions(folder: Path, recorded: str | None) -> None:
    """Raise MismatchError where the folder's captions model is not the one recorded; one that is missing, or that
    nobody recorded, is nobody's matter yet."""
    path = folder / CAPTIONS
    if recorded is None or not path.is_file():
        return
    refuse_lfs_pointer(path)
    found = sha256_file(path)
    if found != recorded:
        raise MismatchError(
            f"{path}: has sha256 {found}, this tokenizer was trained with captions model {recorded}; "
            "put the original file back"
        )
