"""Named points where a test can make the program die, fail or stall. Nothing happens in normal use.

`SEQTOK_FAULTS="shards.before_rename@rank1:3=kill"`: at the third visit of that point on rank 1, kill -9.
Actions: kill, raise, enospc, sleep, nan. Several faults are separated by commas; `@rankN` and `:N` are optional.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections import Counter

_FORM = re.compile(r"(?P<point>[\w.]+)(@rank(?P<rank>\d+))?(:(?P<visit>\d+))?=(?P<action>\w+)")
_visits: Counter[str] = Counter()


def hit(point: str, rank: int = 0) -> str | None:
    """Visit `point`. Returns "nan" when the caller shall spoil its numbers, else None."""
    wanted = os.environ.get("SEQTOK_FAULTS")
    if not wanted:
        return None
    _visits[point] += 1
    for fault in wanted.split(","):
        match = _FORM.fullmatch(fault.strip())
        if match is None:
            raise ValueError(f"SEQTOK_FAULTS: cannot read {fault!r}; form: point[@rankN][:visit]=action")
        if match["point"] != point or (match["rank"] and int(match["rank"]) != rank):
            continue
        if match["visit"] and int(match["visit"]) != _visits[point]:
            continue
        return _act(match["action"], point)
    return None


def _act(action: str, point: str) -> str | None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "raise":
        raise RuntimeError(f"fault injected at {point}")
    if action == "enospc":
        raise OSError(errno.ENOSPC, "No space left on device", point)
    if action == "sleep":
        time.sleep(3600)
    return "nan" if action == "nan" else None
