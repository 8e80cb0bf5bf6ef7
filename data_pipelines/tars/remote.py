"""Shards that are not files: their names, who may read them, and how each kind is opened.

A command runs only for names that the user has allowed. What it says of its own failure is what a user is told.
"""

from __future__ import annotations

import glob
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from seqtok_core.foundation.errors import ConfigError, DataError

SCHEMES = ("pipe", "http", "https", "s3", "gs", "hf")
_CURL = ["curl", "--connect-timeout", "30", "--retry", "5", "--fail", "--silent", "--show-error", "--location"]
_COMMANDS = {"http": _CURL, "https": _CURL, "s3": ["aws", "s3", "cp"], "gs": ["gsutil", "cat"]}
_LAST_WORDS = {"s3": ("-",)}  # behind the address: to its output
_ENDED_EARLY = (141, -13, 23)  # a reader that closed the pipe: the shell's, the kernel's and curl's word for it
_PATIENCE = 5.0  # seconds that a command has to end when nobody reads it any more
_SAID = 400  # characters of a command's last words that are shown
_SCHEME = re.compile(r"(pipe):|([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(name: str) -> str | None:
    """ "pipe", "s3", …; None for a path."""
    found = _SCHEME.match(name)
    return (found[1] or found[2]).lower() if found else None


def expand(patterns: Sequence[str], allowed: bool) -> tuple[str, ...]:
    """Names of shards: `a::b` is two, `a-{000..002}.tar` three, `data/**/*.tar` what fits among local paths.

    Raises ConfigError for what is not allowed, not known, or fits nothing.
    """
    from braceexpand import braceexpand  # what webdataset opens them with

    try:
        names = [name for pattern in patterns for part in pattern.split("::") for name in braceexpand(part)]
    except ValueError as error:
        raise ConfigError(f"`shards`: {error}") from None
    if not names or not all(names):
        raise ConfigError(f"`shards` names no shard{' before or behind a ::' if names else ''}")
    return tuple(found for name in names for found in _found(name, allowed))


def _found(name: str, allowed: bool) -> Iterator[str]:
    scheme = scheme_of(name)
    if scheme == "file":
        name, scheme = unquote(urlsplit(name).path), None
    if scheme is None:
        yield from _local(name)
        return
    if scheme not in SCHEMES and not _fsspec_knows(scheme):
        raise ConfigError(
            f"{name}: {scheme}:// cannot be read; known are {', '.join(SCHEMES)}, paths and what fsspec knows "
            "(`pip install seqtok[remote]`)"
        )
    if not allowed:
        does = "runs a command of the shell" if scheme == "pipe" else "reads from the network"
        raise ConfigError(f"{name}: {does}, which must be allowed: `allow_remote=true`")
    yield name


def _local(name: str) -> list[str]:
    """In order of their names; a file that is called so is no pattern."""
    if not glob.has_magic(name) or glob.glob(glob.escape(name)):
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if not found:
        raise ConfigError(f"{name}: no file fits; `**` stands for folders of any depth")
    return found


def open_shard(name: str) -> IO[bytes]:
    """A stream of the shard's bytes; to be closed. Raises DataError."""
    try:
        return _open(name)
    except FileNotFoundError as error:
        program = error.filename if scheme_of(name) else None
        missing = f"the program {program} is not installed" if program else "no such file"
        raise DataError(f"{name}: {missing}") from None
    except Exception as error:  # each file system of fsspec has errors of its own
        raise DataError(f"{name}: cannot be read ({error or type(error).__name__})") from None


def _open(name: str) -> Any:
    scheme = scheme_of(name)
    if scheme is None:
        return open(name, "rb")
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return HfFileSystem().open(name, "rb")
    if scheme == "pipe":
        return Command(name.removeprefix("pipe:"))
    words = _COMMANDS.get(scheme)
    if words and (shutil.which(words[0]) or not _fsspec_knows(scheme)):
        return Command([*words, name, *_LAST_WORDS.get(scheme, ())])
    import fsspec

    return fsspec.open(name, "rb").open()


def _fsspec_knows(scheme: str) -> bool:
    """Whether it is installed, with what this kind of address needs."""
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        return False
    return True


class Command(io.RawIOBase):
    """What a command writes, as a stream. Words are a program and its arguments, a text is for the shell."""

    def __init__(self, words: str | list[str]) -> None:
        """Raises FileNotFoundError for a program that is missing; a shell says so itself."""
        # A pipe that nobody reads would stop a command that says much.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the stream
        self._process = subprocess.Popen(
            words, shell=isinstance(words, str), stdout=subprocess.PIPE, stderr=self._errors
        )
        self._ended = False  # the command has written all that it will

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        self._ended |= size != 0 and not data
        return data

    def fault(self) -> str:
        """How the command failed, at the end of what it wrote; "" where it did not, or was not read to its end."""
        if not self._ended:
            return ""
        status = self._process.wait()
        if not status or status in _ENDED_EARLY:
            return ""
        self._errors.seek(0)
        said = " ".join(self._errors.read().decode("utf-8", "replace").split())
        ending = f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
        return f"the command {ending}" + (f": {said[-_SAID:]}" if said else ", and said nothing")

    def close(self) -> None:
        if not self.closed and self._process.stdout is not None:
            self._process.stdout.close()  # a command that still writes ends by it
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._errors.close()
        super().close()
