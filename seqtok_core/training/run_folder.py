"""The folder of one run: run.json (its record), config.yaml, environment.json, metrics.jsonl, checkpoints/, samples/,
model/. What is cleared is known by its name: files of other names stay wherever they lie.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from seqtok_core.foundation import files, model_folder, run_record
from seqtok_core.foundation.config import dotted
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError, StorageError
from seqtok_core.foundation.threads import ThreadChoice
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.checkpoints.checkpoint import CHECKPOINTS
from seqtok_core.training.checkpoints.keeping import clear_checkpoints
from seqtok_core.training.journal import environment
from seqtok_core.training.journal.metrics import SCORES, VALIDATION
from seqtok_core.training.journal.summary import BEST
from seqtok_core.training.processes.distributed import World, on_first

log = logging.getLogger(__name__)
_OWN_FILES = (
    "metrics.jsonl",
    VALIDATION,
    environment.FILE,
    run_record.PREEMPTED,
    "bad_batch.json",
    "wandb.json",
    "hang_process_*.txt",
    "config.yaml",  # last: what is half cleared has the settings of what is left
)
# Folder -> what a run writes into it; checkpoints/ knows its own.
_OWN_FOLDERS = {
    "model": model_folder.MODEL_FILES,
    BEST: model_folder.MODEL_FILES,
    CHECKPOINTS: (),
    "tensorboard": ("events.out.tfevents.*",),
    "samples": ("images_*.png", Path(SCORES).name),
    "wandb": ("run-*/", "offline-run-*/", "latest-run", "debug*.log"),  # with a slash: folders
}
_IGNORED = ("run.lock", run_record.PREEMPTED)
# What is learned from, beside the settings: it says what data are, wherever they lie.
CONTENT_KEYS = frozenset({"data_fingerprint", "captions_sha256", "frozen_id", "init_id"})


def refuse_foreign(folder: Path, overwrite: bool) -> None:
    """Raise ConfigError where `folder` holds anything but a run and logs, or what `overwrite` must not remove.

    Changes nothing, so it comes before the lock, which is a file.
    """
    if overwrite:
        files.require_own_place(folder)
    if not folder.is_dir():
        return
    with files.storage_errors(folder):
        entries = [p for p in folder.iterdir() if p.name not in _IGNORED and not p.name.startswith(".")]
        present = sorted(p.name for p in entries if not files.is_log(p))
    if present and not run_record.is_run(folder):
        raise ConfigError(f"{folder}: holds files but no run ({present[0]}, …); choose another folder")
    for path in (folder / name for name in _OWN_FOLDERS):
        if (path.is_symlink() or path.exists()) and not path.is_dir():
            raise ConfigError(f"{path}: is no folder, which a run needs here; move it away, or choose another folder")
        if overwrite and path.is_symlink():
            raise ConfigError(
                f"{path}: is a symbolic link (to {path.readlink()}), behind which `overwrite` removes nothing; remove "
                "the link, or choose another folder"
            )


def begins_anew(
    folder: Path, resolved: Mapping[str, Any], *, resume: str, overwrite: bool, resumable: frozenset[str]
) -> bool:
    """Whether the run starts from nothing, and what `folder` holds of a run goes (rank 0, under the lock).

    `resumable`: dotted paths that may differ from what the folder holds, with all below them. With `overwrite` a run
    goes on only if this very command began it with `overwrite`, a signal stopped it, and the settings are the same:
    such a command comes back from a scheduler's queue.

    Raises ConfigError when the folder is in use for something else, MismatchError when its run has other
    settings (all differing keys in one message) or was begun for more images.
    """
    run_record.take_stop(folder)
    settings = folder / "config.yaml"
    if not overwrite:
        if settings.exists() and resume == "never":
            raise ConfigError(f"{folder}: holds a run; continue it (`resume=auto`), or start anew with `overwrite`")
        if settings.exists():
            _compare(settings, resolved, resumable)
            _compare_length(settings, resolved, resumable)
        return not settings.exists()
    if resume not in ("auto", "never") and folder.resolve() in Path(resume).resolve().parents:
        raise ConfigError(f"{resume}: lies in the run that `overwrite` removes; choose another folder for the new run")
    stop = run_record.own_stop(folder)
    if stop is None or resume == "never" or not settings.exists():
        return True
    try:
        _compare(settings, resolved, resumable)
        _compare_length(settings, resolved, resumable)
    except (DataError, MismatchError):
        return True
    log.warning(
        "%s: stopped by %s after step %s of this very command, so it continues; `resume=never` begins it anew",
        *(folder, stop.get("signal"), stop.get("step")),
    )
    return False


def prepare_run_folder(
    folder: Path,
    resolved: Mapping[str, Any],
    world: World,
    hosts: list[str],
    threads: ThreadChoice,
    *,
    anew: bool,
    overwrite: bool,
) -> None:
    """Make `folder` ready for a run with the settings `resolved`, which `begins_anew` or goes on (rank 0, under the
    lock).

    `hosts` and `threads`, the machine of every process and what this one computes with, go to environment.json.
    Raises StorageError when the folder cannot be written, or what is in it not be removed.
    """
    cleared = anew and run_record.is_run(folder)
    stopped = None if anew else (run_record.record_of(folder) or {}).get("stopped")
    run_record.write_record(folder, overwrite, stopped)
    if cleared:
        _clear(folder)
    with files.atomic_write(folder / "config.yaml", "w") as stream:  # what may differ is as this start has it
        yaml.safe_dump(dict(resolved), stream, sort_keys=False, allow_unicode=True)
    _sweep(folder)
    environment.write_environment(folder, world, hosts, threads)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed have left."""
    own = [folder / name for name in (*_OWN_FILES, run_record.RECORD)]
    own += [folder / name / pattern for name, patterns in _OWN_FOLDERS.items() for pattern in patterns]
    for leftover in (left for path in own for left in files.leftovers_of(path)):
        leftover.unlink(missing_ok=True)


def clear_run(folder: Path) -> None:
    """Remove the run in `folder`, if there is one, all but its record. Raises ConfigError where something else lies
    there, or StorageError."""
    refuse_foreign(folder, overwrite=True)
    if run_record.is_run(folder):
        with files.folder_lock(folder):
            run_record.write_record(folder, overwrite=False)
            _clear(folder)


def require_writable(folder: Path) -> None:
    """Raises ConfigError or StorageError where something in a run's folder cannot be written that it will write: it
    would be noticed after hours otherwise."""
    for name in _OWN_FOLDERS:
        if os.path.lexists(folder / name):
            files.require_place(folder / name, "folder")
    for name in _OWN_FILES:
        files.require_place(folder / name, "file")


def _clear(folder: Path) -> None:
    """Remove what runs write, by its name, and nothing else. A run that is not gone must not look new: StorageError."""
    try:
        with files.storage_errors(folder):
            clear_checkpoints(folder / CHECKPOINTS)
            for name, patterns in _OWN_FOLDERS.items():
                _remove_own(folder / name, patterns)
                with contextlib.suppress(OSError):  # not there, or somebody else's files are left
                    (folder / name).rmdir()
            _remove_own(folder, _OWN_FILES)
    except OSError as error:
        raise StorageError(
            f"{folder}: the run in it cannot be removed ({error.filename or error}: {error.strerror}); choose another "
            "folder"
        ) from None


def _remove_own(folder: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in [*folder.glob(pattern), *files.leftovers_of(folder / pattern)]:
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif pattern.endswith("/"):
                shutil.rmtree(path)


def _compare(path: Path, resolved: Mapping[str, Any], resumable: frozenset[str]) -> None:
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not readable as YAML ({error})") from None
    old, new = dotted(before), dotted(yaml.safe_load(yaml.safe_dump(dict(resolved))))
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k, ...) != new.get(k, ...)]
    differing = [k for k in changed if not any(f"{k}.".startswith(f"{free}.") for free in resumable)]
    if not differing:
        return

    def shown(keys: list[str]) -> str:
        return "; ".join(f"{k}: {old.get(k, 'absent')} there, {new.get(k, 'absent')} here" for k in keys)

    if CONTENT_KEYS.issuperset(differing):  # with the folders that may differ, if only they hold the same
        raise MismatchError(
            f"{path.parent}: the data have changed since this run began ({shown(changed)}), so its place in them means "
            "nothing; put them back, choose another folder, or start anew with `overwrite`"
        )
    raise MismatchError(
        f"{path.parent}: holds a run with other settings ({shown(differing)}); choose another folder, or start anew "
        "with `overwrite`"
    )


def _compare_length(path: Path, resolved: Mapping[str, Any], resumable: frozenset[str]) -> None:
    """The run in the folder may see more images than it was begun for; its settings say so from now on. Raises
    MismatchError for fewer."""
    key = next((key for key in resumable if key.rpartition(".")[2] == "images"), "")
    before = dotted(yaml.safe_load(path.read_text(encoding="utf-8"))).get(key)
    now = dotted(resolved).get(key)
    if not isinstance(before, int) or not isinstance(now, int) or before == now:
        return
    if now < before:
        raise MismatchError(
            f"{path.parent}: a run of {before} images, `images={now}` are fewer: what goes on may get longer, not "
            "shorter; choose another folder, or start anew with `overwrite`"
        )
    log.warning("%s: %d images, not %d: the learning rate is the longer run's from here on", path.parent, now, before)


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
