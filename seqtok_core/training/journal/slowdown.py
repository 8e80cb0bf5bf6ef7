"""Whether a run has become slow because the machine does something else, too."""

from __future__ import annotations

import os

_SLOW, _WELL = 0.5, 0.8  # of the best speed: where it is said, and where it is over
_FIRST = 3  # lines of the log before there is a speed to compare with


class Slowdown:
    """Told the speed of each line, says once for each time that it falls to half while the load is above the cores."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._lines, self._best, self._said = 0, 0.0, False

    def look(self, rate: float, load: float | None = None) -> str | None:
        """`rate` in images/s; `load`: runnable threads of the machine, by default as the system counts them."""
        self._lines += 1
        if self._lines > 1:  # the first line holds the warming up
            self._best = max(self._best, rate)
        if rate >= _WELL * self._best:
            self._said = False
        if self._said or self._lines < _FIRST or rate >= _SLOW * self._best:
            return None
        load = _load() if load is None else load
        if load <= self._cores:
            return None
        self._said = True
        return (
            f"{rate:.0f} images/s where it was {self._best:.0f}: the machine's load is {load:.1f} on {self._cores} "
            "cores, and threads that share a core wait for each other. End the other work, or stop and continue with "
            "fewer threads (`threads`; the same data and steps, but sums round otherwise)"
        )


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
