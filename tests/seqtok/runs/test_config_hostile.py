"""Configs that are wrong, hostile or made of noise: exit status 2, one line, the dotted path, nothing executed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seqtok import cli
from seqtok.runs.kinds import load_run
from seqtok.runs.settings import read_values
from seqtok_core.foundation.errors import ConfigError

TINY = Path(__file__).parents[2] / "configs" / "tiny-tokenizer.yaml"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    before, sys.argv = sys.argv, ["seqtok", *(str(word) for word in words)]
    try:
        cli.main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = before
    return status, capsys.readouterr().err


def with_value(path: str, value: object) -> str:
    """The tiny config with one value changed, as YAML."""
    values = yaml.safe_load(TINY.read_text())
    *parents, last = path.split(".")
    place = values
    for name in parents:
        place = place[name]
    place[last] = value
    return yaml.safe_dump(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: tokenizer\nout: !!python/object/apply:os.system ['touch EXECUTED']\n", "constructor"),
        ("kind: tokenizer\nout: !!python/name:os.system\n", "constructor"),
        (BOMB, "not readable as settings"),
        ("kind: tokenizer\ntrain: {images: 1, images: 2}\n", "images"),
        ("kind: tokenizer\nout: ${oc.env:HOME}\n", "interpolation"),
        ("kind: tokenizer\nout: ${train.seed}\n", "interpolation"),
        ("kind: [tokenizer\n", "not readable as settings"),
        ("\x00\x01", "not readable as settings"),
        ("", "kind=None|mapping"),
        ("just words", "kind=None"),
        (with_value("train.imges", 3), "unknown key train.imges; did you mean train.images?"),
        (with_value("train.images", "many"), "train.images: "),
        (with_value("train.images", 1.5), "train.images: "),
        (with_value("train.images", -1), "train.images: "),
        (with_value("train.lr", [1]), "train.lr: "),
        (with_value("train.lr", float("nan")), "train.lr: "),
        (with_value("train.precision", "fp8"), "train.precision: "),
        (with_value("train.zero_stage", 4), "train.zero_stage: "),
        (with_value("train.offload", "optimizer"), "needs zero_stage"),
        (with_value("train.wandb", {"projct": "x"}), r"unknown key train\.wandb\.projct; .* train\.wandb\.project\?"),
        (with_value("train.wandb", {"project": "x", "mode": "loud"}), "train.wandb.mode: "),
        (with_value("train", None), "train: "),
        (with_value("model.width", True), "model.width: "),
        (with_value("model.width", "32"), "model.width: "),
        (with_value("data.folder", 7), "data.folder: "),
    ],
)  # fmt: skip
def test_a_wrong_config_is_one_line_with_the_path(tmp_path, capsys, monkeypatch, text, message):
    import re

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    status, err = said(capsys, "tokenizer", "train", "run.yaml")
    assert status == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("seqtok: ")
    assert "run.yaml" in err
    assert message in err or re.search(message, err), err
    assert not (tmp_path / "EXECUTED").exists()


def refusal(file: Path, *words: str) -> str:
    """The message of a ConfigError, or nothing; any other error is a failure."""
    try:
        load_run(file, words)
    except ConfigError as error:
        return str(error)
    return ""


PATHS = ["train.images", "train.lr", "train.clip", "train.betas", "train.precision", "model.width", "model.text", "out"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_any_value_is_taken_or_refused_in_one_line(tmp_path, path, value):
    file = tmp_path / "run.yaml"
    file.write_text(with_value(path, value), encoding="utf-8")
    assert "\n" not in refusal(file)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_noise_is_refused_in_one_line(tmp_path, noise):
    file = tmp_path / "run.yaml"
    file.write_bytes(noise)
    with pytest.raises(ConfigError) as caught:
        load_run(file)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@example(word="[")
@example(word="[=1")
@given(word=st.text(max_size=20))
def test_any_override_is_taken_or_refused_in_one_line(word):
    assert "\n" not in refusal(TINY, word)


def test_a_mapping_of_another_kind_takes_the_place_of_the_old_one():
    words = ["model.sequence={kind: full_image, caption_levels: 4}", "model.sequence.stagger=2"]
    values = read_values("demo-generator", words)
    assert values["model"]["sequence"] == {"kind": "full_image", "caption_levels": 4, "stagger": 2}
    merged = read_values("demo-generator", ["model.sequence={kind: next_token, caption_levels: 4}"])
    shipped = read_values("demo-generator", [])["model"]["sequence"]
    assert "prefix_dropout" in shipped
    assert merged["model"]["sequence"] == {**shipped, "caption_levels": 4}
    assert read_values("demo-tokenizer", ["model.encoder.kind=titok"])["model"]["encoder"]["stem_channels"] == 16
