"""Cases of a law: the first ones are always tried, the others with `-m slow`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def rest_slow(cases: Iterable[Any], fast: int = 1) -> list[Any]:
    """The same cases, all but the first `fast` marked; a tuple is the values of several names."""
    own = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if place < fast else pytest.mark.slow) for place, case in enumerate(own)]
