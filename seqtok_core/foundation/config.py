"""Frozen, typed settings. An unknown key is an error that names the nearest known one.

Every part of the software owns one `Config` subclass; a run's settings are a short list of such parts.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from seqtok_core.foundation.errors import ConfigError


class Config(BaseModel):
    """Base of all settings: immutable, no unknown keys, no silent conversion from str to number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_conversion(cls, value: Any, info: ValidationInfo) -> Any:
        """A quoted number is a text, and yes is no number."""
        wanted = set(_plain_types(cls.model_fields[str(info.field_name)].annotation))
        if isinstance(value, bool) and not wanted & {bool, Any} and wanted & {int, float}:
            raise ValueError("should be a number")
        if isinstance(value, str) and wanted <= {int, float, bool, types.NoneType}:
            raise ValueError(
                "should be a number, without quotes" if wanted & {int, float} else "should be true or false"
            )
        return value

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "config") -> Self:
        """Validate `values`; a ConfigError lists every wrong key with its dotted path in one message."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [_explain(cls, item) for item in error.errors()]
            raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def _plain_types(annotation: Any) -> list[Any]:
    """What an annotation allows, its unions and constraints opened."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain_types(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [plain for part in typing.get_args(annotation) for plain in _plain_types(part)]
    return [annotation if typing.get_origin(annotation) is None else object]


def _explain(cls: type[Config], item: Mapping[str, Any]) -> str:
    path = [part for part in item["loc"] if isinstance(part, str | int)]
    dotted = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        owner = _model_at(cls, path[:-1])
        known = sorted(owner.model_fields) if owner else []
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        prefix = ".".join(str(part) for part in path[:-1])
        if near:
            return f"unknown key {dotted}; did you mean {f'{prefix}.' if prefix else ''}{near[0]}?"
        return f"unknown key {dotted}; known keys here: {', '.join(known)}"
    message = item["msg"].removeprefix("Value error, ")
    shown = f" (got {item['input']!r})" if not isinstance(item["input"], Mapping) else ""
    return f"{dotted}: {message}{shown}" if dotted else message


def _model_at(cls: type[BaseModel], path: list[str | int]) -> type[BaseModel] | None:
    """The settings class that owns the keys under `path`, looking through unions and optionals."""
    for part in path:
        field = cls.model_fields.get(str(part))
        if field is None:
            continue  # the tag of a discriminated union stands in the path without being a field
        models = _models_in(field.annotation)
        if not models:
            return None
        cls = models[0]
    return cls


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, list, tuple, dict):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []
