"""What one run is: a file of settings, each part owned by its room, and `key=value` words that change it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError

Count = Annotated[int, Field(ge=1)]


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file (or the name of a shipped one) with `key.sub=value` words merged over it.

    Duplicate keys, tags that build objects, and interpolations are refused.
    """
    from omegaconf import OmegaConf

    file = find_config(path)
    return _merged(lambda: OmegaConf.load(file), overrides, str(file))


def change_values(values: Mapping[str, Any], words: Sequence[str], said: str) -> dict[str, Any]:
    """Settings with `key.sub=value` words merged over them; `said` names them in errors. Raises ConfigError."""
    from omegaconf import OmegaConf

    return _merged(lambda: OmegaConf.create(dict(values)), words, said)


def _merged(load: Callable[[], Any], words: Sequence[str], said: str) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    bad = [word for word in words if "=" not in word]
    if bad:
        raise ConfigError(f"{bad[0]!r}: changes to a config are written key=value")
    try:
        merged = load()
        for word in words:
            merged = _changed(merged, word)
        values = OmegaConf.to_container(merged, resolve=False)
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError, AttributeError, OSError, LookupError) as error:
        raise ConfigError(f"{said}: not readable as settings ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{said}: a config is a mapping of keys to values")
    found = _interpolation(values)
    if found:
        raise ConfigError(f"{said}: {found!r}: interpolations are not resolved; write the value")
    return {str(key): value for key, value in values.items()}


def _changed(values: Any, word: str) -> Any:
    """key=value merged over settings; a mapping of another `kind` takes the place of the old one, whose keys it may not
    know."""
    from omegaconf import DictConfig, OmegaConf

    change, key = OmegaConf.from_dotlist([word]), word.partition("=")[0]
    merged = OmegaConf.merge(values, change)
    old, new = (OmegaConf.select(each, key) for each in (values, change))
    if (
        isinstance(old, DictConfig)
        and isinstance(new, DictConfig)
        and old.get("kind") != new.get("kind", old.get("kind"))
    ):
        OmegaConf.update(merged, key, new, merge=False)
    return merged


def find_config(path: str | Path) -> Path:
    """A file, or a shipped config by its name. Raises ConfigError that names the nearest shipped one."""
    file = Path(path)
    if file.is_file():
        return file
    shipped = shipped_configs()
    name = file.name.removesuffix(".yaml")
    if str(file) == file.name and name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; shipped are: {', '.join(sorted(shipped))}"
    raise ConfigError(f"{path}: no such config{hint}")


def shipped_configs() -> dict[str, Path]:
    """Name -> file of the configs that come with seqtok, in a folder for each stage."""
    folder = Path(str(resources.files("seqtok.configs")))
    return {file.stem: file for file in sorted(folder.glob("*/*.yaml"))}


def dump(config: Config) -> str:
    """The resolved settings as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


@cache
def precision_words(asked: str) -> tuple[str, ...]:
    """The change to a training config. auto: bf16, or fp32, which is said once, on a CPU that only emulates it."""
    if asked == "auto":
        from seqtok_core.training import World
        from seqtok_core.training.costs.hardware import emulates_bf16

        emulated = emulates_bf16(World.from_environment().device)
        if emulated:
            typer.echo("precision=fp32: this machine only emulates bf16, which is slower", err=True)
        asked = "fp32" if emulated else "bf16"
    return (f"train.precision={asked}",)


def _interpolation(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((found for item in value.values() if (found := _interpolation(item))), None)
    if isinstance(value, list):
        return next((found for item in value if (found := _interpolation(item))), None)
    return value if isinstance(value, str) and "${" in value else None
