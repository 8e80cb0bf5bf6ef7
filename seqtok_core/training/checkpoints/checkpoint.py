"""Checkpoints that are complete or absent: written aside, hashed, renamed; verified before they are read.

Each process writes its part (parts.py) and hashes it on the way, the manifest comes last, the rename makes the
checkpoint exist. There is no file `latest` that could name a broken one: the folders' names are the order. On
loading, all processes check the manifest, sizes and hashes before the first value is read.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from seqtok_core.foundation import faults, files, fingerprint
from seqtok_core.foundation.errors import DataError, MismatchError, SeqtokError, StorageError
from seqtok_core.training.checkpoints import parts
from seqtok_core.training.processes.distributed import World, gather_objects, on_first

CHECKPOINTS = "checkpoints"
log = logging.getLogger(__name__)
FORMAT = 2  # of the manifest and the parts
STATE = "state.json"  # what is no tensor
_STEP = re.compile(r"step_(\d{8,})")
_UNFINISHED = re.compile(r"step_\d{8,}(\.old)?\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SPARE = 1 << 20  # bytes beside the parts: manifest, state, the file system's own
Gather = Callable[[Any], list[Any]]  # a small value of every process, by rank, on every process


@dataclass(frozen=True)
class SaveJob:
    """One checkpoint to be written: this process's pieces, and on rank 0 what the manifest says beside them."""

    folder: Path
    step: int
    pieces: Mapping[str, Tensor]
    state: Mapping[str, Any]
    about: Mapping[str, Any]
    needed: int = 0  # bytes of all processes' parts

    @property
    def aside(self) -> Path:
        return self.folder / f"{name_of(self.step)}.tmp"


def name_of(step: int) -> str:
    return f"step_{step:08d}"


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def is_checkpoint_name(name: str) -> bool:
    """Of a checkpoint, or of one that is being written or removed."""
    return bool(_STEP.fullmatch(name) or _UNFINISHED.fullmatch(name))


def all_in(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first, whole or damaged; unfinished ones are not checkpoints."""
    found = [p for p in folder.glob("step_*") if p.is_dir() and _STEP.fullmatch(p.name)]
    return sorted(found, key=step_of)


def make_room(job: SaveJob, world: World) -> int:
    """Sweep unfinished attempts, make the folder, and return the bytes that all parts will need. Collective.

    Raises StorageError on every process when the disk has less.
    """
    needed = sum(gather_objects(world, parts.bytes_of(job.pieces))) + _SPARE
    on_first(world, lambda: _clear_way(job, needed))
    return needed


def _clear_way(job: SaveJob, needed: int) -> None:
    with files.storage_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
        sweep_unfinished(job.folder)
        if files.free_bytes(job.folder) < needed:
            raise _full(job, needed)
        job.aside.mkdir(exist_ok=True)


def sweep_unfinished(folder: Path) -> None:
    """Remove what a kill left in the middle of writing or removing. What cannot be removed is named and stays."""
    for leftover in sorted(path for path in folder.glob("step_*") if _UNFINISHED.fullmatch(path.name)):
        try:
            _discard(leftover)
        except OSError as error:
            log.warning("%s: a leftover that cannot be removed (%s)", leftover, error.strerror or error)


def _full(job: SaveJob, needed: int) -> StorageError:
    newest = newest_whole(job.folder)
    after = f"continues from {newest.name}" if newest else "begins anew"
    free = files.free_bytes(job.folder)
    return StorageError(
        f"{job.aside}: the disk is full: {needed / 2**20:.1f} MiB needed, {free / 2**20:.1f} MiB free; free some "
        f"space and start the same command again: the run {after}"
    )


def write_checkpoint(job: SaveJob, world: World, gather: Gather) -> SeqtokError | None:
    """Make the checkpoint; every process calls it, in any thread. Returns the problem, the same on all processes.

    A part that cannot be written ends the attempt for all; earlier checkpoints stay untouched.
    """
    sealed, problem = _attempt(job, lambda: _part(job, world))
    everyone = gather((sealed, problem))
    problem = next((p for _, p in everyone if p is not None), None)
    if problem is None and world.is_first:
        entries = {name: entry for part, _ in everyone for name, entry in part.items()}
        _, problem = _attempt(job, lambda: _commit(job, entries))
    problem = next((p for p in gather(problem) if p is not None), None)
    if problem is not None and world.is_first:
        shutil.rmtree(job.aside, ignore_errors=True)
    return problem


def _attempt(job: SaveJob, action: Callable[[], Any]) -> tuple[Any, SeqtokError | None]:
    try:
        with files.storage_errors(job.aside):
            return action(), None
    except SeqtokError as error:
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL
        return None, _full(job, job.needed) if full else error
    except (OSError, RuntimeError) as error:
        return None, StorageError(f"{job.aside}: not written ({error}); earlier checkpoints are as they were")


def _part(job: SaveJob, world: World) -> dict[str, dict[str, Any]]:
    name = parts.file_of(world.rank, world.size)
    entries = {name: parts.write_part(job.aside / name, job.pieces, world.rank)}
    if world.is_first:
        with files.atomic_write(job.aside / STATE, "w") as stream:
            json.dump(dict(job.state), stream, indent=1, sort_keys=True)  # a mean may be NaN: Python's JSON
        path = job.aside / STATE
        entries[STATE] = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    return entries


def _commit(job: SaveJob, sealed: dict[str, Any]) -> None:
    final = job.folder / name_of(job.step)
    manifest = {"format": FORMAT, "step": job.step, "files": sealed, **job.about}
    manifest["sha256"] = fingerprint.of_value(manifest)  # of all the rest
    files.write_json(job.aside / "manifest.json", manifest)
    faults.hit("checkpoint.before_rename")
    if final.exists():  # a run that went back to an earlier checkpoint makes this one anew
        remove_checkpoint(final)
    os.replace(job.aside, final)
    files.fsync_folder(job.folder)
    faults.hit("checkpoint.after_rename")


def remove_checkpoint(path: Path) -> None:
    """Renamed first: a kill in between leaves no half checkpoint. What cannot be removed is named and stays."""
    try:
        gone = path.with_name(f"{path.name}.old.tmp")
        os.replace(path, gone)
        _discard(gone)
    except OSError as error:
        log.warning("%s: an old checkpoint that cannot be removed (%s)", path, error.strerror or error)


def _discard(path: Path) -> None:
    """A folder with all in it, or a link without what it points to."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def read_checkpoint_manifest(path: Path) -> dict[str, Any]:
    """Raises DataError when `path` is no checkpoint or damaged, MismatchError when another seqtok wrote it."""
    if not path.is_dir():
        raise DataError(f"{path}: no such checkpoint")
    where = path / "manifest.json"
    manifest = files.read_json(where)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise DataError(f"{where}: not a checkpoint's manifest")
    version = manifest.get("format")
    if version != FORMAT:
        older = isinstance(version, int) and version < FORMAT
        way = "it can be continued by that version only" if older else "use that version"
        raise MismatchError(
            f"{path}: format {version} of {'an earlier' if older else 'another'} seqtok, this one reads format "
            f"{FORMAT}; {way}, or begin anew with `overwrite`"
        )
    if manifest.get("sha256") != fingerprint.of_value({k: v for k, v in manifest.items() if k != "sha256"}):
        raise DataError(f"{where}: its content has changed since it was written (sha256); damaged")
    if path.name != name_of(manifest["step"]) and _STEP.fullmatch(path.name):
        raise DataError(f"{path}: holds step {manifest['step']}; its folder was renamed")
    return manifest


def verify_checkpoint(path: Path, first: int = 0, every: int = 1, hashes: bool = True) -> None:
    """Check every `every`-th file against the manifest. Raises DataError naming the first that differs."""
    entries = sorted(read_checkpoint_manifest(path)["files"].items())
    for name, entry in entries[first::every]:
        file = path / name
        if not file.is_file():
            raise DataError(f"{file}: missing; the checkpoint is damaged")
        if file.stat().st_size != entry["bytes"]:
            raise DataError(f"{file}: {file.stat().st_size} bytes instead of {entry['bytes']}; damaged")
        if hashes and _sha256_of(file) != entry["sha256"]:
            raise DataError(f"{file}: its content has changed since it was written (sha256); damaged")


def _sha256_of(file: Path) -> str:
    try:
        return files.sha256_file(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); the checkpoint is damaged") from None


def problem_of(path: Path, first: int = 0, every: int = 1, hashes: bool = True) -> SeqtokError | None:
    """What `verify_checkpoint` would raise."""
    try:
        verify_checkpoint(path, first, every, hashes)
    except SeqtokError as error:
        return error
    return None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that passes verification, for a message of one process."""
    return next((path for path in reversed(all_in(folder)) if problem_of(path) is None), None)


def open_parts(path: Path) -> parts.Parts:
    """The tensors of a verified checkpoint."""
    return parts.Parts([path / name for name in sorted(read_checkpoint_manifest(path)["files"]) if name != STATE])


def read_state(path: Path) -> dict[str, Any]:
    return files.read_json(path / STATE)


def _agreed_verdict(path: Path, world: World) -> SeqtokError | None:
    problems = gather_objects(world, problem_of(path, world.rank, world.size))
    return next((p for p in problems if p is not None), None)


def newest_valid(folder: Path, world: World) -> Path | None:
    """The newest checkpoint that passes verification, None when there is none at all.

    Damaged newer ones are named in a warning. Raises DataError when all are damaged, MismatchError when the
    newest was written by another version: to begin anew in silence would cost the whole run.
    """
    found = on_first(world, lambda: all_in(folder))
    for path in reversed(found):
        problem = _agreed_verdict(path, world)
        if problem is None:
            return path
        if isinstance(problem, MismatchError):
            raise problem
        if world.is_first:
            log.warning("%s; going back to the one before", problem)
    if found:
        raise DataError(f"{folder}: none of {len(found)} checkpoints is whole ({problem}); begin anew with `overwrite`")
    return None


def explicit(path: Path, world: World) -> Path:
    """The checkpoint the user named, verified. Raises DataError or MismatchError with the reason."""
    problem = _agreed_verdict(path, world)
    if problem is not None:
        raise problem
    return path


def checkpoint_summary(path: Path) -> dict[str, Any]:
    """What a list shows of a checkpoint: step, images, bytes, age_s, written_by, problem (None: whole).

    Sizes are checked, hashes are not; `images` and `written_by` are absent when the manifest cannot be read.
    """
    row: dict[str, Any] = {"step": step_of(path), "problem": problem_of(path, hashes=False)}
    row["bytes"] = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    row["age_s"] = max(0.0, time.time() - path.stat().st_mtime)
    if row["problem"] is None:
        manifest = read_checkpoint_manifest(path)
        row["images"] = manifest["images"]
        row["written_by"] = f"ZeRO {manifest['zero_stage']} x {manifest['processes']}"
    return row
