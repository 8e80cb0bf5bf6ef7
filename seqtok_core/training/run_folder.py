"""The folder of one run: config.yaml, environment.json, metrics.jsonl, checkpoints/, samples/, model/."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError
from seqtok_core.foundation.threads import ThreadChoice
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.checkpoints.checkpoint import CHECKPOINTS
from seqtok_core.training.journal import environment
from seqtok_core.training.journal.metrics import VALIDATION
from seqtok_core.training.journal.summary import BEST
from seqtok_core.training.processes.distributed import World, on_first

log = logging.getLogger(__name__)

_OWN = ("metrics.jsonl", VALIDATION, environment.FILE, "preempted.json", "bad_batch.json", "wandb.json", "config.yaml")
_OWN_FOLDERS = (CHECKPOINTS, "tensorboard", "samples", "model", BEST, "wandb")
_IGNORED = ("run.lock",)
CONTENT_KEYS = frozenset(
    {"data_fingerprint", "captions_sha256", "frozen_id", "init_id"}
)  # what is learned from, beside the settings


def prepare_run_folder(
    folder: Path,
    resolved: Mapping[str, Any],
    world: World,
    hosts: list[str],
    threads: ThreadChoice,
    *,
    resume: str,
    overwrite: bool,
    resumable: frozenset[str],
) -> None:
    """Make or accept `folder` for a run with the settings `resolved` (rank 0, under the lock).

    `hosts` and `threads`, the machine of every process and what this one computes with, go to environment.json.
    `resumable`: dotted paths that may differ from what the folder holds, with all below them.

    Raises ConfigError when the folder is in use for something else, MismatchError when its run has other
    settings (all differing keys in one message), StorageError when it cannot be written.
    """
    entries = [p for p in folder.iterdir() if p.name not in _IGNORED and not p.name.startswith(".")]
    present = sorted(p.name for p in entries if not files.is_log(p))
    used = (folder / "config.yaml").exists()
    if present and not used:
        raise ConfigError(f"{folder}: holds files but no run ({present[0]}, …); choose another folder")
    if used and resume == "never" and not overwrite:
        raise ConfigError(f"{folder}: holds a run; continue it (`resume=auto`), or start anew with `overwrite`")
    if used and overwrite:
        _clear(folder)
    elif used:
        _compare(folder / "config.yaml", resolved, resumable)
    if overwrite or not used or _gets_longer(folder / "config.yaml", resolved, resumable):
        with files.atomic_write(folder / "config.yaml", "w") as stream:
            yaml.safe_dump(dict(resolved), stream, sort_keys=False, allow_unicode=True)
    environment.write_environment(folder, world, hosts, threads)
    (folder / "preempted.json").unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Raises ConfigError or StorageError where something in a run's folder cannot be written that it will write: it
    would be noticed after hours otherwise."""
    for name in _OWN_FOLDERS:
        if os.path.lexists(folder / name):
            files.require_place(folder / name, "folder")
    for name in _OWN:
        files.require_place(folder / name, "file")


def _clear(folder: Path) -> None:
    """Remove what a run writes and nothing else; config.yaml, which makes it a run, goes last."""
    for name in _OWN_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _OWN:
        (folder / name).unlink(missing_ok=True)
    for dump in folder.glob("hang_process_*.txt"):
        dump.unlink()


def _compare(path: Path, resolved: Mapping[str, Any], resumable: frozenset[str]) -> None:
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not readable as YAML ({error})") from None
    old, new = dict(_leaves(before)), dict(_leaves(yaml.safe_load(yaml.safe_dump(dict(resolved)))))
    differing = [k for k in sorted(old.keys() | new.keys()) if old.get(k, ...) != new.get(k, ...)]
    differing = [k for k in differing if not any(f"{k}.".startswith(f"{free}.") for free in resumable)]
    if differing:
        shown = "; ".join(f"{k}: {old.get(k, 'absent')} there, {new.get(k, 'absent')} here" for k in differing)
        if CONTENT_KEYS.issuperset(differing):
            raise MismatchError(
                f"{path.parent}: the data have changed since this run began ({shown}), so its place in them means "
                "nothing; put them back, choose another folder, or start anew with `overwrite`"
            )
        raise MismatchError(
            f"{path.parent}: holds a run with other settings ({shown}); choose another folder, or start anew "
            "with `overwrite`"
        )


def _gets_longer(path: Path, resolved: Mapping[str, Any], resumable: frozenset[str]) -> bool:
    """Whether the run in the folder shall see more images than it was begun for; its settings say so from now on.
    Raises MismatchError for fewer."""
    key = next((key for key in resumable if key.rpartition(".")[2] == "images"), "")
    before = dict(_leaves(yaml.safe_load(path.read_text(encoding="utf-8")))).get(key)
    now = dict(_leaves(resolved)).get(key)
    if not isinstance(before, int) or not isinstance(now, int) or before == now:
        return False
    if now < before:
        raise MismatchError(
            f"{path.parent}: a run of {before} images, `images={now}` are fewer: what goes on may get longer, not "
            "shorter; choose another folder, or start anew with `overwrite`"
        )
    log.warning("%s: %d images, not %d: the learning rate is the longer run's from here on", path.parent, now, before)
    return True


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


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
