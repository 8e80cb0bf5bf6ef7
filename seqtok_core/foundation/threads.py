"""How many threads one process computes with on CPU: as many as there are cores that nothing else uses.

Threads of one computation wait for each other by spinning. Beside one busy process two threads on two cores fell from
520 to under 110 images/s in training, while one thread kept 338; so a core that is taken is better left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from seqtok_core.foundation.machine import cores, processor_limit

_LOOK = 0.4  # seconds that the cores are watched


@dataclass(frozen=True)
class ThreadChoice:
    """`chosen` None: as torch is set up."""

    setting: int | Literal["auto"] | None
    chosen: int | None
    cores: int  # that this process may use
    busy: float | None  # of them, with other work, when it was looked at
    why: str

    def describe(self) -> str:
        """One line for the user."""
        taken = f"{self.chosen} of {self.cores} cores" if self.chosen else f"{self.cores} cores, as torch takes them"
        return f"computes on {taken}: {self.why}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def choose_threads(
    setting: int | Literal["auto"] | None,
    *,
    on_cpu: bool = True,
    processes: int = 1,
    before: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    busy_cores: Callable[[], float] | None = None,
) -> ThreadChoice:
    """`setting`: a number wins over all, None leaves everything as it is, "auto" looks at the machine, unless
    OMP_NUM_THREADS is set.

    `processes`: that share this machine. `before`: the choice that a continued run began with, kept on a machine of as
    many cores, because sums over another number of threads round otherwise. `busy_cores` measures the others' work.
    """
    own_cores = usable_cores()
    if isinstance(setting, int):
        return ThreadChoice(setting, setting, own_cores, None, "as the settings say")
    if setting is None or not on_cpu:
        return ThreadChoice(setting, None, own_cores, None, "the settings leave it" if on_cpu else "the GPU computes")
    own = environ.get("OMP_NUM_THREADS", "")
    if own:
        return ThreadChoice(setting, None, own_cores, None, f"OMP_NUM_THREADS={own}")
    if before is not None and before.get("cores") == own_cores and isinstance(before.get("chosen"), int):
        return ThreadChoice(
            setting, before["chosen"], own_cores, None, "as this run began, so that its bits stay the same"
        )
    if processes > 1:
        chosen = max(1, own_cores // processes)
        return ThreadChoice(setting, chosen, own_cores, None, f"shared by {processes} processes")
    busy = (busy_cores or measure_busy_cores)()
    chosen = max(1, min(own_cores, round(own_cores - busy)))
    return ThreadChoice(setting, chosen, own_cores, round(busy, 2), f"{busy:.1f} are busy with other work")


def usable_cores() -> int:
    """Cores of this process: its affinity, and what the control group's quota is worth."""
    quota, found = processor_limit(), len(cores())
    return max(1, min(found, int(quota) if quota else found))


def measure_busy_cores() -> float:
    """How many of this process's cores work while it waits."""
    import psutil

    shares = psutil.cpu_percent(_LOOK, percpu=True)
    by_core = (sum(shares[number] for number in core if number < len(shares)) for core in cores())
    return sum(min(share / 100, 1.0) for share in by_core)
