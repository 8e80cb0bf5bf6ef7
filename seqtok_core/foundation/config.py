"""Frozen, typed settings. An unknown key is an error that names the nearest known one.

Every part of the software owns one `Config` subclass; a run's settings are a short list of such parts.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from seqtok_core.foundation.errors import ConfigError


class _Resumable:
    """See RESUMABLE."""


# Annotated[T, RESUMABLE]: the key, with all below it, may differ between a run and its continuation.
RESUMABLE: Final = _Resumable()


class _Later:
    """See LATER."""


# Annotated[T, LATER]: the key came after models and runs were saved. At its default it is not written, so that what
# was made before keeps its identity (a hash of its settings) and runs go on.
LATER: Final = _Later()


def by_kind(usual: str) -> Discriminator:
    """Annotated[Annotated[A, Tag("a")] | Annotated[B, Tag("b")], by_kind("a")]: the key `kind` says whose settings
    follow; where it is missing they are those of the kind `usual`, so that a second kind leaves old configs valid."""

    def kind_of(value: Any) -> Any:
        return value.get("kind", usual) if isinstance(value, Mapping) else getattr(value, "kind", None)

    return Discriminator(kind_of)


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

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        for name, field in type(self).model_fields.items():
            if LATER in field.metadata and getattr(self, name) == field.default:
                written.pop(name, None)
        return written

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "config") -> Self:
        """Validate `values`; a ConfigError lists every wrong key with its dotted path in one message."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [_explain(cls, item) for item in error.errors()]
            raise ConfigError(f"{where}: " + "; ".join(lines)) from None

    def identity(self) -> dict[str, Any]:
        """What tells these settings from the defaults, as JSON takes it; `kind` always. A later version that knows one
        more setting gives the same."""
        found: dict[str, Any] = {}
        plain = self.model_dump(mode="json", exclude_defaults=True)
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Config) and (part := value.identity()):
                found[name] = part
            elif name == "kind":
                found[name] = value
            elif name in plain and not isinstance(value, Config):
                found[name] = plain[name]
        return found

    @classmethod
    def resumable_keys(cls) -> frozenset[str]:
        """Whole dotted paths of the fields that are marked RESUMABLE, here and in every part."""
        found = set()
        for name, field in cls.model_fields.items():
            if RESUMABLE in field.metadata:
                found.add(name)
                continue
            parts = [part for part in models_in(field.annotation) if issubclass(part, Config)]
            found |= {f"{name}.{key}" for part in parts for key in part.resumable_keys()}
        return frozenset(found)


def fill_preset(values: Any, presets: Mapping[str, Mapping[str, Any]]) -> Any:
    """What a `preset` key stands for, under the keys that are given beside it; for a validator of mode "before".

    Raises ValueError that names the nearest preset.
    """
    name = values.get("preset") if isinstance(values, Mapping) else None
    if name is None:
        return values
    if not isinstance(name, str) or name not in presets:
        raise ValueError(f"preset={name!r}: {_nearest(str(name), list(presets))}")
    return overlay(presets[name], values)


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `under`, key by key down into mappings; settings of another `kind` are not mixed."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        low, high = under[key], over[key]
        if isinstance(low, Mapping) and isinstance(high, Mapping):
            other = "kind" in low and high.get("kind", low["kind"]) != low["kind"]
            merged[key] = dict(high) if other else overlay(low, high)
    return merged


def dotted(values: Any) -> dict[str, Any]:
    """Settings as a mapping of mappings -> dotted path: value, of every one that is no mapping with keys of its own."""
    return dict(_leaves(values, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"


def _plain_types(annotation: Any) -> list[Any]:
    """What an annotation allows, its unions and constraints opened."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain_types(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [plain for part in typing.get_args(annotation) for plain in _plain_types(part)]
    return [annotation if typing.get_origin(annotation) is None else object]


def _explain(cls: type[Config], item: Mapping[str, Any]) -> str:
    unknown = item["type"] == "extra_forbidden"
    loc = [part for part in item["loc"] if isinstance(part, str | int)]
    owner, path = _model_at(cls, loc[:-1] if unknown else loc)
    prefix = "".join(f"{part}." for part in path)
    if unknown:
        known = sorted(owner.model_fields) if owner else []
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        if near:
            return f"unknown key {prefix}{loc[-1]}; did you mean {prefix}{near[0]}?"
        below = _path_below(owner, str(loc[-1])) if owner else None
        if below:
            return f"unknown key {prefix}{loc[-1]}; did you mean {prefix}{below}?"
        return f"unknown key {prefix}{loc[-1]}; known keys here: {', '.join(known)}"
    if item["type"] == "union_tag_invalid":
        given, known = str(item["ctx"]["tag"]), item["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{prefix}kind={given!r}: {_nearest(given, known)}"
    if item["type"] == "union_tag_not_found":
        return f"{prefix}kind is missing"
    if item["type"] == "literal_error" and path[-1:] == ["kind"]:
        known = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{prefix[:-1]}={item['input']!r}: {_nearest(str(item['input']), known)}"
    message = item["msg"].removeprefix("Value error, ")
    shown = f" (got {item['input']!r})" if not isinstance(item["input"], Mapping) else ""
    return f"{prefix[:-1]}: {message}{shown}" if path else message


def _path_below(owner: type[BaseModel], key: str) -> str | None:
    """Where a part of `owner`, or a part of a part, has a field of this name."""
    for name, field in owner.model_fields.items():
        for part in models_in(field.annotation):
            found = key if key in part.model_fields else _path_below(part, key)
            if found:
                return f"{name}.{found}"
    return None


def _model_at(cls: type[BaseModel], loc: list[str | int]) -> tuple[type[BaseModel] | None, list[str | int]]:
    """The settings class that owns the keys under `loc`, and `loc` without the tags of `by_kind`."""
    owner: type[BaseModel] | None = cls
    models: list[type[BaseModel]] = []
    path: list[str | int] = []
    for part in loc:
        tagged = [model for model in models if "kind" in model.model_fields and _is_kind(model, part)]
        if len(models) > 1 and tagged:
            owner, models = tagged[0], []
            continue
        path.append(part)
        field = owner.model_fields.get(str(part)) if owner else None
        models = models_in(field.annotation) if field else models if isinstance(part, int) else []
        owner = models[0] if models else None
    return owner, path


def _is_kind(model: type[BaseModel], word: str | int) -> bool:
    return word in typing.get_args(model.model_fields["kind"].annotation)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a field's annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, list, tuple, dict):
        return [model for part in typing.get_args(annotation) for model in models_in(part)]
    return []
