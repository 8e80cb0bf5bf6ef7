"""Messages of the rooms below in the words of the command line.

A room below names its own fields and functions in backticks: `overwrite`, `resume=auto`, `fields.image`, `prepare()`.
Here they become what the user of a command can type: an option of that command, a key of the config that it was given,
or another command. What is neither stays as it is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup, TyperOption

from seqtok.commands.data.prepare import READING
from seqtok_core.foundation.errors import SeqtokError

_NAMED = re.compile(r"`([a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*)(?:=([^`]*)|(\(\)))?`")
# The function of a room below -> the command that calls it.
_COMMANDS = {
    "prepare": "seqtok data prepare DATA OUT",
    "train_vocabulary": "seqtok data text FOLDER",
    "verify_folder": "seqtok data verify FOLDER",
    "export_tokens": "seqtok tokenizer export",
}


def in_words_of(command: TyperCommand | TyperGroup, message: str, words: Sequence[str] = ()) -> str:
    """`message` as somebody who called `command` would say it. `words`: the command line, which may name a config."""
    options = {
        option.name: option for option in command.params if isinstance(option, TyperOption) and option.name is not None
    }
    takes_config = any(param.name == "overrides" for param in command.params)

    def spoken(match: re.Match[str]) -> str:
        name, value, call = match.group(1), match.group(2), match.group(3)
        if call:
            return f"`{_COMMANDS[name]}`" if name in _COMMANDS else match.group(0)
        option = options.get(READING.names.get(name, name))
        if option is not None:
            flag = max(option.opts, key=len)
            return flag if option.is_flag or value is None else f"{flag} {value}"
        key = _key_of(name, _kind_of(words)) if takes_config else None
        return match.group(0) if key is None else key if value is None else f"{key}={value}"

    return _NAMED.sub(spoken, message)


def command_of(app: typer.Typer, words: Sequence[str]) -> TyperCommand | TyperGroup:
    """The command that a command line names, as far as it goes."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if isinstance(command, TyperGroup):
            command = command.commands.get(word, command)
    return command


def _kind_of(words: Sequence[str]) -> str | None:
    """Of the config that a command line names; None where it names none that can be read."""
    from seqtok.runs.settings import read_values

    for word in words:
        with contextlib.suppress(SeqtokError, OSError):
            return read_values(word, ()).get("kind")
    return None


def _key_of(name: str, kind: str | None) -> str | None:
    """The one key of a training's config that is `name` or ends with it; None when there are several, or none."""
    from seqtok.runs.kinds import RUNS

    runs = [RUNS[kind]] if kind in RUNS else RUNS.values()
    found = {path for run in runs for path in _paths(run) if f".{path}".endswith(f".{name}")}
    return found.pop() if len(found) == 1 else None


def _paths(config: type[BaseModel], above: str = "") -> Iterator[str]:
    from seqtok_core.foundation.config import models_in

    for name, field in config.model_fields.items():
        yield above + name
        for part in models_in(field.annotation):
            yield from _paths(part, f"{above}{name}.")
