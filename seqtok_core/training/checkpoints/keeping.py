"""Which checkpoints stay, and what is swept: only whole ones count, and what cannot be removed is named and stays.

Nothing in here ends a training: a folder that the file system holds on to costs room, a run that stops costs work.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from seqtok_core.foundation.errors import SeqtokError
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.checkpoints.checkpoint import log, step_of


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the `newest`, and for ever the first at or after each multiple of `every` images."""

    newest: int
    every: int | None = None
    batch: int = 1  # images per step

    def superfluous(self, steps: list[int]) -> list[int]:
        """`steps` of all whole checkpoints, ascending -> those that go."""
        stays, marks = set(steps[-self.newest :]), 0
        for step in steps:
            passed = step * self.batch // self.every if self.every else 0
            if passed > marks:
                stays.add(step)
                marks = passed
        return [step for step in steps if step not in stays]


class Keeper:
    """Removes what `keep` does not want. A checkpoint is hashed when it is first met, and again when the size or the
    time of one of its files has changed; those of this run are known to be whole as they were written."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._verdicts: dict[Path, tuple[_Marks, SeqtokError | None]] = {}

    def tidy(self, folder: Path, written: int) -> None:
        """After the checkpoint of step `written` came to be, which stays in any case.

        A damaged one goes when enough whole ones are newer, as an old one does.
        """
        self._verdicts[folder / checkpoint.name_of(written)] = (_marks_of(folder / checkpoint.name_of(written)), None)
        found = checkpoint.all_in(folder)
        whole = [step_of(path) for path in found if self._is_whole(path)]
        gone = set(self._keep.superfluous(whole))
        if len(whole) >= self._keep.newest:
            oldest = whole[-self._keep.newest]
            gone |= {step_of(path) for path in found if step_of(path) < oldest and step_of(path) not in whole}
        for step in sorted(gone - {written}):
            checkpoint.remove_checkpoint(folder / checkpoint.name_of(step))

    def _is_whole(self, path: Path) -> bool:
        marks = _marks_of(path)
        known = self._verdicts.get(path)
        if known is None or known[0] != marks:
            known = self._verdicts[path] = (marks, checkpoint.problem_of(path))
            if known[1] is not None:
                log.warning("%s; it does not count among those that are kept", known[1])
        return known[1] is None


def clear_checkpoints(folder: Path) -> None:
    """Remove every checkpoint, whole or not, and no file that a checkpoint has not; raises OSError.

    A folder of a checkpoint in which something else lies stays with that, under a name that is no checkpoint's.
    """
    for path in sorted(path for path in folder.glob("step_*") if checkpoint.is_checkpoint_name(path.name)):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            continue
        for own in (own for pattern in _FILES for own in path.glob(pattern)):
            own.unlink()
        if any(path.iterdir()):
            kept = path.rename(path.with_name(f"{path.name}.left"))
            log.warning("%s: holds files that no checkpoint has; they stay there", kept)
        else:
            path.rmdir()


_FILES = ("manifest.json", checkpoint.STATE, "part_*_of_*.safetensors", ".*.json.*.tmp")
_Marks = tuple[tuple[str, int, int], ...]


def _marks_of(path: Path) -> _Marks:
    """Name, size and time of each file; nothing for a folder that cannot be read."""
    try:
        with os.scandir(path) as entries:
            found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))
