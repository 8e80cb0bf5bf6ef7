"""Laws of settings: presets under single keys, whole paths of resumable keys, a wrong kind names the nearest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, Tag, model_validator

from seqtok_core.foundation.config import RESUMABLE, Config, by_kind, fill_preset, overlay
from seqtok_core.foundation.errors import ConfigError

PRESETS = {"tiny": {"width": 8, "depth": 1}, "small": {"width": 64, "depth": 4}}


class Sized(Config):
    preset: Literal["tiny", "small"] | None = None
    width: int = 16
    depth: int = 2

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        return fill_preset(values, PRESETS)


class Round(Config):
    kind: Literal["round"] = "round"
    cache: int = 1


class Square(Config):
    kind: Literal["square"] = "square"
    threads: Annotated[int | None, RESUMABLE] = Field(None, ge=1)


class Reading(Config):
    cache: Annotated[int, RESUMABLE] = 0
    levels: int = 4


class Whole(Config):
    shape: Annotated[Annotated[Round, Tag("round")] | Annotated[Square, Tag("square")], by_kind("round")] = Round()
    reading: Reading | None = None
    kept: Annotated[Reading, RESUMABLE] = Reading()


def test_single_keys_override_a_preset():
    assert Sized.parse({"preset": "tiny"}) == Sized(preset="tiny", width=8, depth=1)
    assert Sized.parse({"preset": "small", "depth": 9}).depth == 9
    assert Sized.parse({}).width == 16
    resolved = Sized.parse({"preset": "small", "depth": 9})
    assert Sized.parse(resolved.model_dump()) == resolved


def test_a_wrong_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"preset='smal': did you mean small\?"):
        Sized.parse({"preset": "smal"})
    for no_name in (["small"], {"small": 1}, 3):
        with pytest.raises(ConfigError, match=r"preset=.*: (did you mean small\?|choose one of tiny, small)"):
            Sized.parse({"preset": no_name})


def test_a_wrong_kind_names_the_nearest():
    with pytest.raises(ConfigError, match=r"shape\.kind='squar': did you mean square\?"):
        Whole.parse({"shape": {"kind": "squar"}})
    with pytest.raises(ConfigError, match=r"shape\.kind='xyz': choose one of round, square"):
        Whole.parse({"shape": {"kind": "xyz"}})
    with pytest.raises(ConfigError, match=r"shape\.kind is missing"):
        Whole.parse({"shape": {"kind": None}})


def test_settings_without_a_kind_are_those_of_the_usual_one():
    assert Whole.parse({"shape": {"cache": 2}}).shape == Round(cache=2)
    with pytest.raises(ConfigError, match=r"unknown key shape\.threads; known keys here: cache, kind"):
        Whole.parse({"shape": {"threads": 2}})


def test_an_unknown_key_of_a_kind_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown key shape\.thread; did you mean shape\.threads\?"):
        Whole.parse({"shape": {"kind": "square", "thread": 2}})
    with pytest.raises(ConfigError, match=r"shape\.threads: Input should be greater"):
        Whole.parse({"shape": {"kind": "square", "threads": 0}})


def test_an_unknown_key_that_a_part_has_names_the_part():
    with pytest.raises(ConfigError, match=r"unknown key levels; did you mean reading\.levels\?"):
        Whole.parse({"levels": 2})


def test_resumable_keys_are_whole_paths():
    """The key `shape.cache` of a model is none, though `reading.cache` is."""
    assert Whole.resumable_keys() == {"shape.threads", "reading.cache", "kept"}


def test_settings_are_overlaid_down_to_single_keys_but_kinds_are_not_mixed():
    under = {"a": {"kind": "x", "b": 1, "c": {"d": 2}}, "e": 3}
    assert overlay(under, {"a": {"c": {"f": 4}}}) == {"a": {"kind": "x", "b": 1, "c": {"d": 2, "f": 4}}, "e": 3}
    assert overlay(under, {"a": {"kind": "y"}, "e": 5}) == {"a": {"kind": "y"}, "e": 5}
    assert under["e"] == 3


def test_identity_is_what_differs_from_the_defaults():
    """And the kind of every part: two kinds with defaults alone are not the same."""

    class One(Config):
        kind: Literal["one"] = "one"
        size: int = 3

    class Two(Config):
        kind: Literal["two"] = "two"

    class Whole(Config):
        part: One | Two = One()
        text: One | None = None
        width: int = 8

    assert Whole().identity() == {"part": {"kind": "one"}}
    assert Whole(part=Two(), width=9).identity() == {"part": {"kind": "two"}, "width": 9}
    assert Whole(text=One(size=4)).identity() == {"part": {"kind": "one"}, "text": {"kind": "one", "size": 4}}
