"""Checkpoints that are complete or absent: written aside, hashed, renamed; verified before they are read.

DeepSpeed's own `latest` file is written before the other processes' files are there, and its loader unpickles
whatever it finds. So: each process hashes and flushes its files, the manifest comes last, the rename makes
the checkpoint exist; on loading, sizes, hashes and pickled names are checked by all processes before
DeepSpeed runs.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from seqtok_core.foundation import faults, files
from seqtok_core.foundation.errors import DataError, MismatchError, SeqtokError, StorageError
from seqtok_core.training.distributed import World, barrier, gather_objects, on_first

log = logging.getLogger(__name__)

FORMAT = 1  # of the manifest
_STEP = re.compile(r"step_(\d{8,})")
_RANK = re.compile(r"zero_pp_rank_(\d+)_")
_HARMLESS = {  # what DeepSpeed's honest files name
    "deepspeed.utils.tensor_fragment.fragment_address",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
}


def name_of(step: int) -> str:
    return f"step_{step:08d}"


def all_in(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first, whole or damaged; unfinished ones are not checkpoints."""
    found = [p for p in folder.glob("step_*") if p.is_dir() and _STEP.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step_")))


def save(
    folder: Path,
    step: int,
    world: World,
    write: Callable[[Path, str], None],
    about: dict[str, Any],
    keep: int,
) -> None:
    """Make folder/step_NNNNNNNN: `write(folder, tag)` by every process, then the manifest, then the rename.

    Raises StorageError, on every process, when the disk is full; earlier checkpoints stay untouched.
    """
    tag = f"{name_of(step)}.tmp"
    aside = folder / tag
    on_first(world, lambda: _make_room(folder, aside))
    _together(world, aside, lambda: write(folder, tag))
    mine = _together(world, aside, lambda: _seal(aside, world.rank))
    sealed = {name: entry for part in gather_objects(world, mine) for name, entry in part.items()}
    on_first(world, lambda: _commit(folder, step, sealed, about, keep))
    barrier(world)


def _make_room(folder: Path, aside: Path) -> None:
    """Sweep an unfinished attempt; refuse early when the newest checkpoint would not fit a second time."""
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.tmp"):
            shutil.rmtree(leftover)
    existing = all_in(folder)
    if existing:
        needed = int(1.2 * sum(p.stat().st_size for p in existing[-1].rglob("*") if p.is_file()))
        free = files.free_bytes(folder)
        if free < needed:
            raise StorageError(
                f"{aside}: {needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free; free some space and "
                f"start again: the run continues from {existing[-1].name}"
            )


def _together(world: World, aside: Path, action: Callable[[], Any]) -> Any:
    """Run on every process; what fails on one ends all with the same message, instead of a hang.

    A disk that fills inside torch.save shows as RuntimeError("unexpected pos ..."), not as an OSError.
    """
    result, problem = None, None
    try:
        with files.storage_errors(aside):
            result = action()
    except SeqtokError as error:
        problem = error
    except (OSError, RuntimeError) as error:
        problem = StorageError(f"{aside}: not written on process {world.rank} ({error}); is the disk full?")
    problems = [p for p in gather_objects(world, problem) if p is not None]
    if problems:
        on_first(world, lambda: shutil.rmtree(aside, ignore_errors=True))
        raise problems[0]
    return result


def _owner(path: Path) -> int:
    """The process that wrote a file: ZeRO's parts carry their number, all else is rank 0's."""
    match = _RANK.match(path.name)
    return int(match[1]) if match else 0


def _seal(aside: Path, rank: int) -> dict[str, dict[str, Any]]:
    faults.hit("checkpoint.before_hash", rank)
    entries = {}
    for path in sorted(p for p in aside.rglob("*") if p.is_file() and _owner(p) == rank):
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
        entry = {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
        entries[path.relative_to(aside).as_posix()] = entry
    return entries


def _commit(folder: Path, step: int, sealed: dict[str, Any], about: dict[str, Any], keep: int) -> None:
    aside, final = folder / f"{name_of(step)}.tmp", folder / name_of(step)
    files.write_json(aside / "manifest.json", {"format": FORMAT, "step": step, "files": sealed, **about})
    faults.hit("checkpoint.before_rename")
    if final.exists():
        shutil.rmtree(final)  # a run that went back to an earlier checkpoint makes this one anew
    os.replace(aside, final)
    files.fsync_folder(folder)
    faults.hit("checkpoint.after_rename")
    for old in all_in(folder)[:-keep]:
        shutil.rmtree(old)


def read_manifest(path: Path) -> dict[str, Any]:
    """Raises DataError when `path` is no checkpoint, MismatchError when a newer seqtok wrote it."""
    if not path.is_dir():
        raise DataError(f"{path}: no such checkpoint")
    manifest = files.read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise DataError(f"{path / 'manifest.json'}: not a checkpoint's manifest")
    if manifest.get("format") != FORMAT:
        raise MismatchError(f"{path}: format {manifest.get('format')}, this seqtok reads {FORMAT}; use its version")
    return manifest


def verify(path: Path, part: int = 0, parts: int = 1) -> None:
    """Check every `parts`-th file against the manifest. Raises DataError naming the first that differs."""
    entries = sorted(read_manifest(path)["files"].items())
    for name, entry in entries[part::parts]:
        file = path / name
        if not file.is_file():
            raise DataError(f"{file}: missing; the checkpoint is damaged")
        if file.stat().st_size != entry["bytes"]:
            raise DataError(f"{file}: {file.stat().st_size} bytes instead of {entry['bytes']}; damaged")
        if files.sha256_file(file) != entry["sha256"]:
            raise DataError(f"{file}: its content has changed since it was written (sha256); damaged")
        if file.suffix == ".pt":
            _vet(file)


def _vet(file: Path) -> None:
    """Refuse a pickle that would call anything but the few names DeepSpeed stores."""
    foreign = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(file)) - _HARMLESS)
    if foreign:
        raise DataError(f"{file}: would run {', '.join(foreign)} when loaded; refused")


def _agreed_verdict(path: Path, world: World) -> SeqtokError | None:
    problem: SeqtokError | None = None
    try:
        verify(path, world.rank, world.size)
    except SeqtokError as error:
        problem = error
    return next((p for p in gather_objects(world, problem) if p is not None), None)


def newest_valid(folder: Path, world: World) -> Path | None:
    """The newest checkpoint that passes verification; damaged newer ones are named in a warning."""
    for path in reversed(on_first(world, lambda: all_in(folder))):
        problem = _agreed_verdict(path, world)
        if problem is None:
            return path
        if world.is_first:
            log.warning("%s; going back to the one before", problem)
    return None


def explicit(path: Path, world: World) -> Path:
    """The checkpoint the user named, verified. Raises DataError or MismatchError with the reason."""
    problem = _agreed_verdict(path, world)
    if problem is not None:
        raise problem
    return path
