"""Shards that are not files: names with braces, who may read them, and how each kind is opened.

Nothing here decodes anything, and webdataset stays in its secure mode: its openers run a shell, or reach out, only
for names that the user has allowed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import IO, Any

from seqtok_core.foundation.compat import import_webdataset
from seqtok_core.foundation.errors import ConfigError, DataError

SCHEMES = ("pipe", "http", "https", "s3", "gs", "hf")
_ENDED_EARLY = [141, -13, 23]  # a reader that closed the pipe: the shell's, the kernel's and curl's word for it
_SCHEME = re.compile(r"(pipe):|([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(name: str) -> str | None:
    """ "pipe", "s3", …; None for a path."""
    found = _SCHEME.match(name)
    return (found[1] or found[2]).lower() if found else None


def expand(patterns: Sequence[str], allowed: bool) -> tuple[str, ...]:
    """Names with their braces opened: `a-{000..002}.tar` is three. Raises ConfigError for what is not allowed."""
    from braceexpand import braceexpand  # what webdataset opens them with

    try:
        names = tuple(name for pattern in patterns for name in braceexpand(pattern))
    except ValueError as error:
        raise ConfigError(f"`shards`: {error}") from None
    for name in names:
        scheme = scheme_of(name)
        if scheme is None:
            continue
        if scheme not in SCHEMES:
            raise ConfigError(f"{name}: {scheme}:// cannot be read; known are {', '.join(SCHEMES)} and paths")
        if not allowed:
            does = "runs a command of the shell" if scheme == "pipe" else "reads from the network"
            raise ConfigError(f"{name}: {does}, which must be allowed: `allow_remote=true`")
    if not names:
        raise ConfigError("`shards` names no shard")
    return names


def open_shard(name: str) -> IO[bytes]:
    """A stream of the shard's bytes; to be closed, which raises OSError when the source failed. Raises DataError."""
    try:
        return _open(name)
    except FileNotFoundError as error:
        program = error.filename if scheme_of(name) else None
        missing = f"the program {program} is not installed" if program else "no such file"
        raise DataError(f"{name}: {missing}") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error})") from None


def _open(name: str) -> Any:
    scheme = scheme_of(name)
    if scheme is None:
        return open(name, "rb")
    import_webdataset()
    from webdataset.gopen import Pipe

    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return HfFileSystem().open(name, "rb")
    if scheme == "pipe":  # not gopen(): its secure mode, which also keeps pickles out, knows no exception
        return Pipe(name.removeprefix("pipe:"), mode="rb", shell=True, ignore_status=_ENDED_EARLY)
    commands = {
        "s3": ["aws", "s3", "cp", name, "-"],
        "gs": ["gsutil", "cat", name],
    }
    curl = ["curl", "--connect-timeout", "30", "--retry", "5", "--fail", "--silent", "--location", name]
    return Pipe(commands.get(scheme, curl), mode="rb", ignore_status=_ENDED_EARLY)
