"""A contestant whose two models are trained together stands in a suite as the others do: same settings, same judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipelines.captions.tokenizer import CaptionTokenizer
from seqtok.commands.data.app import app as data_app
from seqtok.plan import suite as suite_plans
from seqtok.runs.base import AssumedData
from seqtok.runs.judge.orders.suite import SuiteConfig, training_flops
from seqtok.runs.settings import read_values
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.foundation.files import read_json
from tests.seqtok.runs.judge.test_suite import shipped, small_suite, start

REACHING = ["objective.reach=1", "objective.decoded_weight=0.5"]
SHORT = [*REACHING, "train.images=48"]


def suite_with(values: dict[str, Any], **own: Any) -> SuiteConfig:
    given = {name: {"says": "both together", "taught": True, **fields} for name, fields in own.items()}
    return SuiteConfig.parse({**values, "own": given, "contestants": [*own]}, "test")


def test_both_are_trained_as_each_alone_would_be_but_for_what_is_said():
    suite = suite_with(
        read_values("ordering-scenes"), joint={"together": REACHING, "afterwards": ["train.images=4000"]}
    )
    both, generator = suite.runs("joint", 2).values()
    alone = shipped().runs("text_on_every_prefix", 2)
    assert list(alone) == ["tokenizer", "generator"]
    assert both.model.tokenizer == alone["tokenizer"].model
    assert both.model.generator == generator.model == alone["generator"].model
    assert both.objective.tokenizer == alone["tokenizer"].objective
    assert both.objective.generator == generator.objective == alone["generator"].objective
    assert (both.objective.reach, both.objective.decoded_weight) == (1.0, 0.5)
    assert both.train == alone["tokenizer"].train
    assert (both.train.seed, generator.train.images) == (2, 4000)
    assert generator.init_from == str(both.out / "model" / "generator")
    assert generator.tokenizer == both.out / "model" / "tokenizer"


@pytest.mark.slow
def test_the_shipped_ways_cost_the_same():
    suite = SuiteConfig.parse(read_values("ordering-together"), "test")
    assumed = AssumedData(512, (16, 8), 40000)
    costs = {
        name: sum(training_flops(run, assumed) for run in suite.runs(name, 0).values()) for name in suite.contestants
    }
    assert max(costs.values()) <= 1.02 * min(costs.values()), costs


def test_no_training_follows_unless_asked():
    suite = suite_with(read_values("ordering-scenes"), joint={"together": []})
    assert list(suite.runs("joint", 0)) == ["together"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"together": ["objective.raech=1"]}, r"own\.joint\.together: unknown key objective\.raech.*objective\.reach"),
        ({"afterwards": ["train.images=8"]}, "afterwards: follows a training of both"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        suite_with(read_values("ordering-scenes"), joint=fields).runs("joint", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("together")
    scenes = ["scenes", str(path / "data"), "--train", "64", "--val", "32", "--test", "32", "--size", "16"]
    for words in (scenes, ["text", str(path / "data"), "--vocab", "512"]):
        data_app(words, standalone_mode=False)
    return path


def test_hours_of_a_suite_follow_the_operations_of_what_is_trained(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suite_plans, "answer_plan", lambda *_: {"time": {"images_per_s": 48.0}})
    values = read_values(small_suite(folder, "plan"))
    apart = SuiteConfig.parse({**values, "contestants": ["text_on_every_prefix", "text_on_all_tokens"]}, "test")
    assert suite_plans.plan_suite(apart)["hours"] == pytest.approx(2 * (2 + 2) / 3600, rel=0.05)
    scales = SuiteConfig.parse({**values, "contestants": ["text_on_every_prefix", "scales"]}, "test")
    assert suite_plans.plan_suite(scales)["hours"] > 0, "latents in groups"
    joint = suite_with(values, joint={"together": SHORT})
    (both,) = joint.runs("joint", 0).values()
    assumed = AssumedData(CaptionTokenizer.load(folder / "data" / "captions.model").vocab_size, (16, 8), 64)
    alone = sum(training_flops(run, assumed) for run in apart.runs("text_on_every_prefix", 0).values())
    ratio = training_flops(both, assumed) / alone
    assert suite_plans.plan_suite(joint)["hours"] == pytest.approx(ratio * (2 + 2) / 3600)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_is_trained_once_and_judged_as_the_others(folder: Path):
    joint = {"says": "both together", "taught": True, "together": SHORT, "afterwards": ["train.images=32"]}
    path = small_suite(folder, "judged", own={"joint": joint}, contestants=["joint"])
    first = start(path)
    assert "ordering.html" in first.communicate()[0]
    made = folder / "judged" / "joint-0"
    results, model = read_json(made / "results.json"), made / "together" / "model" / "tokenizer" / "config.json"
    assert results["trained"] == {"together": 48, "generator": 32}
    assert results["training_flops"] > 0
    assert {"order", "frechet", "manifold", "cost", "early"} <= set(results)
    (made / "results.json").unlink()
    before = model.stat().st_mtime_ns
    again = start(path)
    assert again.wait() == 0, again.communicate()[0]
    assert model.stat().st_mtime_ns == before
    assert read_json(made / "results.json")["order"] == results["order"]
