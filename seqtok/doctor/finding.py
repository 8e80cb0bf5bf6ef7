"""One thing that the doctor looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """`problem`: training or preparing will fail. `warning`: slow, or will fail for some uses. `way`: one line."""

    subject: str
    state: State
    text: str
    way: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, "ok", text)


def warning(subject: str, text: str, way: str) -> Finding:
    return Finding(subject, "warning", text, way)


def problem(subject: str, text: str, way: str) -> Finding:
    return Finding(subject, "problem", text, way)


def guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    """What `check` finds; a check that itself fails is a warning: the doctor never ends in a traceback."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.strip("_").replace("_", " ")
        said = " ".join(str(error).split()) or type(error).__name__
        return [warning(name, f"could not be looked at ({said[:160]})", "look at it by hand")]
