"""Flags are the fields of the settings that they fill: names, defaults, choices, limits and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.sources.open import SourceConfig
from seqtok.cli import app
from seqtok.commands.data.prepare import READING, WRITING
from seqtok.flags import Flags, flags
from seqtok.words import command_of
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class Inner(Config):
    deep: int = Field(3, ge=1, le=9, description="How deep.")
    raw: bool = Field(False, description="As it is.")


class Settings(Config):
    mode: Literal["slow", "quick"] = Field("slow", description="How quickly.")
    words: tuple[str, ...] = Field((), description="Some words.")
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    place: Path | None = None
    share: float = Field(0.5, lt=1)
    inner: Inner = Inner()


def run(*words: str, **options: Any) -> tuple[int, Any, str]:
    """Exit status, the settings that the command got, and what was printed."""
    got: list[Settings] = []
    program = typer.Typer(pretty_exceptions_enable=False)

    @program.command()
    @flags(settings=Flags(Settings, **options))
    def command(first: str, settings: Settings, last: bool = False) -> None:
        got.append(settings)

    done = CliRunner().invoke(program, ["first", *words], env={"COLUMNS": "200"})
    if isinstance(done.exception, ConfigError):
        raise done.exception
    return done.exit_code, got[0] if got else None, done.output


def test_nothing_said_is_the_settings_as_they_are():
    assert run()[1] == Settings()


def test_what_is_said_arrives():
    words = ["--mode", "quick", "--words", "a", "--words", "b", "--sizes", "2", "--place", "/x", "--deep", "4", "--raw"]
    assert run(*words)[1] == Settings(
        mode="quick", words=("a", "b"), sizes=(2,), place=Path("/x"), inner=Inner(deep=4, raw=True)
    )


def test_a_flag_may_have_another_name_and_another_default():
    status, got, _ = run("--word", "a", names={"words": "word"}, defaults={"inner.deep": 7, "sizes": (8,)})
    assert (status, got.words, got.inner.deep, got.sizes) == (0, ("a",), 7, (8,))


def test_some_fields_alone_become_flags():
    status, _, output = run("--raw", only=("inner.deep",))
    assert status == 2
    assert "No such option" in output
    assert run("--mode", "quick", leave_out=("mode",))[0] == 2


@pytest.mark.parametrize(
    "words", [("--mode", "sluggish"), ("--deep", "0"), ("--deep", "10"), ("--sizes", "0"), ("--deep", "x")]
)
def test_what_the_field_does_not_allow_is_refused_by_its_flag(words: tuple[str, str]):
    status, got, output = run(*words)
    assert (status, got) == (2, None)
    assert words[0] in output


def test_what_only_the_settings_know_is_their_message():
    with pytest.raises(ConfigError, match=r"options: share: Input should be less than 1"):
        run("--share", "1.5")


def test_help_is_the_fields_own():
    output = run("--help")[2]
    for part in ("How deep.", "1<=x<=9", "[default: 3]", "slow|quick", "Some words.", "--raw "):
        assert part in output
    assert "--no-raw" not in output


def test_every_setting_of_a_preparation_has_its_flag():
    """And nothing else has one, but what belongs to the command itself."""
    names = {param.name for param in command_of(app, ["data", "prepare"]).params}
    expected = {part.name_of(path) for part in (READING, WRITING) for path in part.paths()}
    assert names == expected | {"source", "out", "resume", "overwrite", "dry_run"}
    assert len(expected) == sum(len(part.paths()) for part in (READING, WRITING))
    assert set(READING.paths()) == {
        *(name for name in SourceConfig.model_fields if name != "fields"),
        *(f"fields.{name}" for name in SourceConfig().fields.model_dump()),
    }
    assert {path.split(".")[0] for path in WRITING.paths()} == set(PrepareConfig.model_fields)
    for part in (READING, WRITING):
        assert set(part.names) | {path for paths in part.panels.values() for path in paths} <= set(part.paths())
        assert all(info.description for info in part.paths().values())
