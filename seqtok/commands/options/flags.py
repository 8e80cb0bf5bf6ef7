"""Flags of a command made from the settings that it fills: names, defaults, choices, limits and help have one owner,
the field of the Config.

    @app.command()
    @flags(config=Flags(ExportConfig, names={"prefixes": "prefix"}))
    def export(model: Model, out: Out, config: ExportConfig) -> None: ...

Typer sees `--what`, `--prefix` and the others in place of `config`; the function gets an ExportConfig.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import wraps
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from seqtok_core.foundation.config import Config

_REQUIRED = inspect.Parameter.empty  # in place of a default


@dataclass(frozen=True)
class Flags:
    """Which fields of `config` become flags. A field is named by its dotted path, a flag by the last word of it.

    --help shows flags without a panel first, then the panels in the order of `panels`.
    """

    config: type[Config]
    names: Mapping[str, str] = field(default_factory=dict)  # path -> another name of the flag
    panels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # panel of --help -> paths
    only: tuple[str, ...] = ()  # paths; (): all
    leave_out: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)  # path -> a command's own default

    def __post_init__(self) -> None:
        in_panels = [path for paths in self.panels.values() for path in paths]
        unknown = {*self.names, *in_panels, *self.only, *self.leave_out, *self.defaults} - dict(
            _fields(self.config)
        ).keys()
        assert not unknown, f"{self.config.__name__} has no {', '.join(sorted(unknown))}"

    def paths(self) -> dict[str, FieldInfo]:
        """Path -> field, parts of parts included."""
        found = dict(_fields(self.config))
        chosen = self.only or tuple(path for path in found if path not in self.leave_out)
        return {path: found[path] for path in chosen}

    def name_of(self, path: str) -> str:
        return self.names.get(path, path.rpartition(".")[2])

    def parameters(self) -> Iterator[inspect.Parameter]:
        """What typer reads, one for each flag."""
        panel_of = {path: panel for panel, paths in self.panels.items() for path in paths}
        order = [None, *self.panels]
        for path, info in sorted(self.paths().items(), key=lambda item: order.index(panel_of.get(item[0]))):
            own = _REQUIRED if info.is_required() else info.get_default(call_default_factory=True)
            yield _parameter(self.name_of(path), info, self.defaults.get(path, own), panel_of.get(path))

    def parse(self, given: Mapping[str, Any]) -> Config:
        """From flags by name to settings. Raises ConfigError; what was not given is left to the settings."""
        values: dict[str, Any] = {}
        for path in self.paths():
            value = given[self.name_of(path)]
            value = self.defaults.get(path) if value is None else value
            if value is None:
                continue
            *above, last = path.split(".")
            part = values
            for name in above:
                part = part.setdefault(name, {})
            part[last] = tuple(_plain(item) for item in value) if isinstance(value, list) else _plain(value)
        return self.config.parse(values, "options")


def flags(**settings: Flags) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: each named parameter, a Config, is replaced by its flags. `names` of two may not meet."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=False)
        hints = typing.get_type_hints(function, include_extras=True, localns=dict(_placeholders(settings)))
        parameters: list[inspect.Parameter] = []
        for name, parameter in own.parameters.items():
            made = settings[name].parameters() if name in settings else [parameter.replace(annotation=hints[name])]
            parameters += [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in made]

        @wraps(function)
        def command(**given: Any) -> None:
            plain = {name: value for name, value in given.items() if name in own.parameters}
            function(**plain, **{name: part.parse(given) for name, part in settings.items()})

        command.__signature__ = own.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
        command.__annotations__ = {item.name: item.annotation for item in parameters}
        return command

    return decorate


def _placeholders(settings: Mapping[str, Flags]) -> Iterator[tuple[str, Any]]:
    """Config classes that a command names for the type checker alone."""
    for part in settings.values():
        yield part.config.__name__, part.config


def _fields(config: type[Config], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Config):
            yield from _fields(info.annotation, f"{above}{name}.")
        else:
            yield above + name, info


@dataclass(frozen=True)
class _Type:
    plain: Any
    optional: bool = False
    repeated: bool = False
    limits: tuple[Any, ...] = ()


def _parameter(name: str, info: FieldInfo, default: Any, panel: str | None) -> inspect.Parameter:
    kind = _type_of(info.annotation, tuple(info.metadata))
    annotation: Any = kind.plain
    if get_origin(kind.plain) is Literal:
        annotation = _choices(name, get_args(kind.plain))
        default = default if kind.repeated or default in (None, _REQUIRED) else annotation(default)
    if kind.repeated:
        annotation, default = list[annotation], _REQUIRED if default is _REQUIRED else None
    if (kind.optional or kind.repeated) and default is not _REQUIRED:
        annotation = annotation | None
    limits = {"min": _limit(kind.limits, Ge, "ge"), "max": _limit(kind.limits, Le, "le")}
    switch = kind.plain is bool and default is False  # what is not off anyway needs its --no-name, which typer makes
    names = [f"--{name.replace('_', '-')}"] if switch else []
    option = typer.Option(*names, help=info.description, rich_help_panel=panel, **limits)
    annotation = Annotated[annotation, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _choices(name: str, words: tuple[Any, ...]) -> Any:
    """An enumeration, which typer offers as choices; its values are those of the settings, numbers too."""
    return Enum(name, {str(word): word for word in words})


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _type_of(annotation: Any, limits: tuple[Any, ...]) -> _Type:
    origin = get_origin(annotation)
    if origin is Annotated:
        plain, *more = get_args(annotation)
        inner = tuple(m for item in more for m in (item.metadata if isinstance(item, FieldInfo) else [item]))
        return _type_of(plain, limits + inner)
    if origin in (typing.Union, types.UnionType):
        parts = [_type_of(part, limits) for part in get_args(annotation) if part is not type(None)]
        assert len({part.plain for part in parts}) == 1, f"{annotation}: a flag has one type, leave the field out"
        optional = len(parts) < len(get_args(annotation))
        chosen = next((part for part in parts if part.repeated), parts[0])
        return _Type(chosen.plain, optional, chosen.repeated, chosen.limits)
    if origin is tuple:
        assert get_args(annotation)[1:] == (...,), f"{annotation}: a flag repeats one type, leave the field out"
        item = _type_of(get_args(annotation)[0], limits)
        return _Type(item.plain, repeated=True, limits=item.limits)
    return _Type(annotation, limits=limits)


def _limit(limits: tuple[Any, ...], kind: type, key: str) -> Any:
    return next((getattr(limit, key) for limit in limits if isinstance(limit, kind)), None)
