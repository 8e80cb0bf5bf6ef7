"""The folder of a data set that is being written: claimed by one plan, locked, swept of half-written files.

The plan lies in `prepare.json`. The same plan continues, another one is refused.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from data_pipelines.shards.files import sweep
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import folder_lock, is_log, read_json, write_json

LOCK = "run.lock"  # of files.folder_lock: says which process holds the folder
PLAN = "prepare.json"
Resume = Literal["auto", "never"]
_OURS = re.compile(
    r".+-[a-z]+-\d{6}\.(tar|parquet|npy|keys\.txt|rows\.jsonl|index\.json)"
    r"|dataset\.json|prepare\.json|captions\.model"
)


@contextlib.contextmanager
def output_folder(
    out: Path, plan: Mapping[str, Any], *, overwrite: bool = False, resume: Resume = "auto"
) -> Iterator[None]:
    """Hold `out` for writing. Raises DataError when it holds anything but the data set of this plan."""
    refuse_used(out, plan, overwrite=overwrite, resume=resume)
    with folder_lock(out):
        if overwrite or not (out / PLAN).is_file():
            for path in sorted(out.iterdir()):
                if _OURS.fullmatch(path.name):
                    path.unlink()
            write_json(out / PLAN, plan)
        sweep(out)
        try:
            yield
        except BaseException:
            sweep(out)  # of workers that were ended in the middle of a file
            raise


def refuse_used(out: Path, plan: Mapping[str, Any], *, overwrite: bool, resume: Resume) -> None:
    """The check alone; changes nothing on the disk."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, not a folder")
    present = [p for p in out.iterdir() if p.name != LOCK and not is_log(p)] if out.is_dir() else []
    entries = sorted(p.name for p in present)
    foreign = [name for name in entries if name.endswith(".tar") and not _OURS.fullmatch(name)]
    if foreign:
        raise DataError(f"{out}: holds {foreign[0]}, which seqtok did not write; choose another folder")
    if not entries or overwrite:
        return
    if PLAN not in entries:
        raise DataError(f"{out}: not empty ({entries[0]}); choose another folder or use `overwrite`")
    if read_json(out / PLAN) != plan:
        raise DataError(
            f"{out}: holds a data set of another source or other settings; choose another folder or use `overwrite`"
        )
    if resume == "never":
        raise DataError(f"{out}: already begun; `resume=auto` continues, `overwrite` starts again")
