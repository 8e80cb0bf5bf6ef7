"""Flags are the fields of the settings that they fill: names, defaults, choices, limits and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from data_pipelines.prepare.settings import ONLY_HOW, PrepareConfig
from data_pipelines.sources.open import SourceConfig
from data_pipelines.sources.records import Fields
from seqtok.cli import app
from seqtok.commands.data.app import HOW
from seqtok.commands.data.prepare import READING, WRITING
from seqtok.commands.options.flags import Flags, flags
from seqtok.commands.tokenizer import EXPORTING
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


class Rarer(Config):
    must: int = Field(ge=1)
    shrink: bool = True
    mirror: bool | None = None
    halvings: Literal[1, 2, 4] = 2
    forms: tuple[Literal["png", "jpg"], ...] = ("png",)


def run(*words: str, config: type[Config] = Settings, **options: Any) -> tuple[int, Any, str]:
    """Exit status, the settings that the command got, and what was printed."""
    got: list[Config] = []
    program = typer.Typer(pretty_exceptions_enable=False)

    @program.command()
    @flags(settings=Flags(config, **options))
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


def test_what_is_on_or_undecided_can_be_switched_off():
    off = run("--must", "1", "--no-shrink", "--no-mirror", config=Rarer)[1]
    assert off == Rarer(must=1, shrink=False, mirror=False)
    assert run("--must", "1", config=Rarer)[1] == Rarer(must=1)
    assert run("--must", "1", "--mirror", config=Rarer)[1].mirror is True


def test_choices_may_be_numbers_and_may_be_repeated():
    got = run("--must", "1", "--halvings", "4", "--forms", "jpg", "--forms", "png", config=Rarer)[1]
    assert got == Rarer(must=1, halvings=4, forms=("jpg", "png"))
    assert run("--must", "1", "--halvings", "3", config=Rarer)[0] == 2


def test_a_field_without_a_default_must_be_said():
    status, _, output = run(config=Rarer)
    assert status == 2
    assert "Missing option '--must'" in output
    assert run(config=Rarer, defaults={"must": 5})[1].must == 5


def test_a_field_that_no_flag_can_say_is_no_flag():
    class Odd(Config):
        pair: tuple[int, float] = (1, 2.0)
        either: Literal["all"] | float = "all"
        name: str = "a"

    with pytest.raises(AssertionError, match="leave the field out"):
        run(config=Odd, leave_out=("pair",))
    with pytest.raises(AssertionError, match="leave the field out"):
        run(config=Odd, leave_out=("either",))
    assert run("--name", "b", config=Odd, only=("name",))[1].name == "b"


@pytest.mark.parametrize(
    "options", [{"names": {"sise": "x"}}, {"panels": {"P": ("sise",)}}, {"only": ("sise",)}, {"defaults": {"sise": 1}}]
)
def test_a_path_that_is_no_field_is_seen(options: dict[str, Any]):
    with pytest.raises(AssertionError, match="Settings has no sise"):
        Flags(Settings, **options)


def test_two_flags_of_one_name_are_seen():
    with pytest.raises(ValueError, match="duplicate parameter name"):
        run(names={"mode": "words"})
    with pytest.raises(ValueError, match="duplicate parameter name"):
        run(names={"mode": "last"})


def test_panels_stand_in_the_order_in_which_they_are_named():
    output = run("--help", panels={"Later": ("mode",), "Last": ("words", "inner.raw")})[2]
    assert output.index("Options") < output.index("Later") < output.index("--mode") < output.index("Last")


def test_what_only_the_settings_know_is_their_message():
    with pytest.raises(ConfigError, match=r"options: share: Input should be less than 1"):
        run("--share", "1.5")


def test_help_is_the_fields_own():
    output = run("--help")[2]
    for part in ("How deep.", "1<=x<=9", "[default: 3]", "slow|quick", "Some words.", "--raw "):
        assert part in output
    assert "--no-raw" not in output


COMMANDS = [
    ("data prepare", (READING, WRITING), {"source", "out", "resume", "overwrite", "dry_run"}),
    ("data scenes", (HOW,), {"out", "train", "val", "test", "size", "seed", "resume", "overwrite", "dry_run"}),
    ("tokenizer export", (EXPORTING,), {"model", "data", "out", "resume", "overwrite", "dry_run"}),
]


@pytest.mark.parametrize(("words", "parts", "own"), COMMANDS)
def test_the_flags_of_a_command_are_the_fields_of_its_settings(words: str, parts: tuple[Flags, ...], own: set[str]):
    """And nothing else is, but what belongs to the command itself."""
    params = {param.name: param for param in command_of(app, words.split()).params}
    fields = {part.name_of(path): (part, path, info) for part in parts for path, info in part.paths().items()}
    assert params.keys() == fields.keys() | own
    for name, (part, path, info) in fields.items():
        assert info.description, f"{path} says nothing"
        assert params[name].help == info.description
        value, default = params[name].default, part.defaults.get(path, info.default)
        repeated = isinstance(default, tuple)  # what was not said is left to the settings
        assert value is None if repeated else getattr(value, "value", value) == default


@pytest.mark.parametrize("part", [READING, WRITING, EXPORTING])
def test_no_setting_is_without_its_flag(part: Flags):
    def leaves(config: Config) -> int:
        values = [getattr(config, name) for name in type(config).model_fields]
        return sum(leaves(value) if isinstance(value, Config) else 1 for value in values)

    assert len(part.paths()) == leaves(part.config())


def test_scenes_take_all_that_says_how_and_nothing_that_says_what():
    """No drawn scene is bad, so limits of bad samples have no use."""
    assert set(HOW.paths()) == ONLY_HOW - {"max_bad_share", "max_bad_run"}


def test_nothing_said_to_a_preparation_is_its_settings_as_they_are():
    """But for the field of captions, which flags say as a list of one."""
    nothing = dict.fromkeys((part.name_of(path) for part in (READING, WRITING) for path in part.paths()), None)
    assert WRITING.parse(nothing) == PrepareConfig()
    assert READING.parse(nothing) == SourceConfig(fields=Fields(captions=("captions",)))
    assert HOW.parse(nothing) == PrepareConfig(processes=2)
