"""Sample keys that are safe as file names: [A-Za-z0-9_-], at most 128, one per sample."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LONGEST = 128
_HASH = 12  # hex digits that tell two names apart when their safe forms are equal


def safe_key(name: str) -> str:
    """Every other character becomes "_"; a name that is too long or empty ends in a hash of itself."""
    key = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return key if SAFE_KEY.fullmatch(key) else _with_hash(key, name)


def assign_keys(names: Sequence[str]) -> list[str | None]:
    """One key per name; None for the second and later samples of the same name.

    Different names whose safe forms are equal all get a hash, so that no key depends on the order.
    """
    wanted = [safe_key(name) for name in names]
    distinct = Counter(key for _, key in set(zip(names, wanted, strict=True)))
    given: set[str] = set()
    keys: list[str | None] = []
    for name, key in zip(names, wanted, strict=True):
        if distinct[key] > 1:
            key = _with_hash(key, name)
        keys.append(None if key in given else key)
        given.add(key)
    return keys


def _with_hash(key: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{key[: _LONGEST - _HASH - 1]}-{digest}"
