"""The folder of one run: config.yaml, environment.json, metrics.jsonl, checkpoints/, samples/, model/."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError
from seqtok_core.training import checkpoint
from seqtok_core.training.distributed import World, on_first

CHECKPOINTS = "checkpoints"
_OWN = ("metrics.jsonl", "environment.json", "preempted.json", "bad_batch.json", "config.yaml")
_OWN_FOLDERS = (CHECKPOINTS, "tensorboard", "samples", "model")
_IGNORED = ("run.lock",)
FREE_KEYS = frozenset({"threads", "workers", "keep"})  # may differ between a run and its continuation
# So may how data is read, where that changes no batch.
FREE_KEYS |= {"num_workers", "prefetch", "start_method", "pin_memory", "cache", "allow_remote"}
_PACKAGES = ("torch", "deepspeed", "numpy", "open_clip_torch", "webdataset", "sentencepiece")


def prepare(folder: Path, resolved: Mapping[str, Any], world: World, *, resume: str, overwrite: bool) -> None:
    """Make or accept `folder` for a run with the settings `resolved` (rank 0, under the lock).

    Raises ConfigError when the folder is in use for something else, MismatchError when its run has other
    settings (all differing keys in one message), StorageError when it cannot be written.
    """
    present = sorted(p.name for p in folder.iterdir() if p.name not in _IGNORED and not p.name.startswith("."))
    used = (folder / "config.yaml").exists()
    if present and not used:
        raise ConfigError(f"{folder}: holds files but no run ({present[0]}, …); choose another folder")
    if used and resume == "never" and not overwrite:
        raise ConfigError(f"{folder}: holds a run; continue it (--resume auto), or start anew with --overwrite")
    if used and overwrite:
        _clear(folder)
    elif used:
        _compare(folder / "config.yaml", resolved)
    if overwrite or not used:
        with files.atomic_write(folder / "config.yaml", "w") as stream:
            yaml.safe_dump(dict(resolved), stream, sort_keys=False, allow_unicode=True)
    files.write_json(folder / "environment.json", environment(world))
    (folder / "preempted.json").unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove what a run writes and nothing else; config.yaml, which makes it a run, goes last."""
    for name in _OWN_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _OWN:
        (folder / name).unlink(missing_ok=True)


def _compare(path: Path, resolved: Mapping[str, Any]) -> None:
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as YAML ({error})") from None
    old, new = dict(_leaves(before)), dict(_leaves(yaml.safe_load(yaml.safe_dump(dict(resolved)))))
    differing = [k for k in sorted(old.keys() | new.keys()) if old.get(k, ...) != new.get(k, ...)]
    differing = [k for k in differing if k.rsplit(".", 1)[-1] not in FREE_KEYS]
    if differing:
        absent = "absent"
        shown = "; ".join(f"{k}: {old.get(k, absent)} there, {new.get(k, absent)} here" for k in differing)
        raise MismatchError(
            f"{path.parent}: holds a run with other settings ({shown}); choose another folder, or start anew "
            "with --overwrite"
        )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def environment(world: World) -> dict[str, Any]:
    """Where and with what the run was started last."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "processes": world.size,
        "device": str(world.device),
        "versions": versions,
    }


def start_from(folder: Path, resume: str, world: World) -> Path | None:
    """The verified checkpoint to continue from, or None. `resume`: "auto", "never" or a checkpoint's path.

    Raises DataError when the named checkpoint is damaged, ConfigError when it would orphan newer ones.
    """
    if resume == "never":
        return None
    if resume == "auto":
        return checkpoint.newest_valid(folder / CHECKPOINTS, world)
    named = Path(resume)
    inside = named.resolve().parent == (folder / CHECKPOINTS).resolve()
    if not inside and on_first(world, lambda: checkpoint.all_in(folder / CHECKPOINTS)):
        return checkpoint.newest_valid(folder / CHECKPOINTS, world)  # the same command again, after a stop
    newer = [p.name for p in checkpoint.all_in(folder / CHECKPOINTS) if p.name > named.name]
    if newer and inside:
        raise ConfigError(f"{named}: {', '.join(newer)} in the same run are newer; remove them to go back this far")
    return checkpoint.explicit(named, world)
