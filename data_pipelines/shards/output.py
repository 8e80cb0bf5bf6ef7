"""The folder of a data set that is being written: claimed by one plan, locked, swept of half-written files.

The plan lies in `prepare.json`. The same plan continues, another one is refused. It is also the record of what is ours:
only a folder that has a plan is cleared, of files that are named as its data set's are.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from data_pipelines.shards.files import sweep
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import (
    folder_lock,
    is_log,
    read_json,
    require_own_place,
    storage_errors,
    write_json,
)

LOCK = "run.lock"  # of files.folder_lock: says which process holds the folder
PLAN = "prepare.json"
Resume = Literal["auto", "never"]
_FILES = r"-[a-z]+-\d{6}\.(tar|parquet|npy|codes\.npy|keys\.txt|rows\.jsonl|index\.json)"
_BESIDE = r"dataset\.json|prepare\.json|captions\.model"


@contextlib.contextmanager
def output_folder(
    out: Path, plan: Mapping[str, Any], *, overwrite: bool = False, resume: Resume = "auto"
) -> Iterator[None]:
    """Hold `out` for writing. Raises DataError when it holds anything but the data set of this plan, ConfigError when
    `overwrite` must not clear it."""
    refuse_used(out, plan, overwrite=overwrite, resume=resume)
    with folder_lock(out):
        if overwrite or not (out / PLAN).is_file():
            _clear(out)
            write_json(out / PLAN, plan)
        sweep(out)
        try:
            yield
        finally:
            sweep(out)  # of workers that were ended, or lost with their node, in the middle of a file


def refuse_source(out: Path, source: Path | str) -> None:
    """Raises DataError where the folder that is read would be written: to overwrite it would leave nothing to read."""
    if os.path.realpath(out) == os.path.realpath(source):  # Path.resolve ends at a loop of links with its own error
        raise DataError(f"{out}: is what is read; choose another folder")


def clear_output(out: Path) -> None:
    """Remove the data set in `out`, if there is one. Raises DataError or ConfigError as overwriting it does."""
    refuse_used(out, {}, overwrite=True, resume="auto")
    if out.is_dir():
        with folder_lock(out):
            _clear(out)


def _clear(out: Path) -> None:
    """The plan goes last: without it nothing says whose the rest is."""
    ours = _names_of(_plan_in(out))
    found = [path for path in out.iterdir() if ours.fullmatch(path.name) and (path.is_symlink() or path.is_file())]
    with storage_errors(out):
        for path in sorted(found, key=lambda path: (path.name == PLAN, path.name)):
            path.unlink()


def _plan_in(out: Path) -> dict[str, Any] | None:
    """None where there is no plan. Raises DataError when a file of that name is not ours."""
    path = out / PLAN
    if not path.is_file():
        return None
    plan = read_json(path)
    if not isinstance(plan, dict) or not any(keys <= plan.keys() for keys in _PLANS):
        raise DataError(f"{path}: seqtok did not write this; choose another folder")
    return plan


_PLANS = ({"config", "splits"}, {"latents", "shape"}, {"export"})  # of prepare(), of latents, of tables


def _names_of(plan: dict[str, Any] | None) -> re.Pattern[str]:
    """The files of a data set with this plan; without one what might be anybody's data set."""
    named = plan and (plan.get("config") or plan.get("export") or plan)
    name = named.get("name") if isinstance(named, dict) else None
    prefix = rf"{re.escape(name)}(_(latents|images|texts))?" if isinstance(name, str) else ".+"
    return re.compile(f"{prefix}{_FILES}|{_BESIDE}")


def refuse_used(out: Path, plan: Mapping[str, Any], *, overwrite: bool, resume: Resume) -> None:
    """The check alone; changes nothing on the disk."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder")
    if overwrite:
        require_own_place(out)
    present = [p for p in out.iterdir() if p.name != LOCK and not is_log(p)] if out.is_dir() else []
    entries = sorted(p.name for p in present)
    there = _plan_in(out)
    ours = _names_of(there)
    foreign = [name for name in entries if name.endswith(".tar") and not (there and ours.fullmatch(name))]
    if overwrite and there is None:
        foreign += [name for name in entries if ours.fullmatch(name)]
    if foreign:
        raise DataError(f"{out}: holds {foreign[0]}, which seqtok did not write; choose another folder")
    if not entries or overwrite:
        return
    if PLAN not in entries:
        raise DataError(f"{out}: not empty ({entries[0]}); choose another folder or use `overwrite`")
    if there != plan:
        raise DataError(
            f"{out}: holds a data set of another source or other settings; choose another folder or use `overwrite`"
        )
    if resume == "never":
        raise DataError(f"{out}: already begun; `resume=auto` continues, `overwrite` starts again")
