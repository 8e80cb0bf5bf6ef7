"""What a suite of orders costs, before it is started."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer.bottlenecks.build import build_bottleneck
from seqtok.plan.answer import answer_plan
from seqtok.plan.request import PlanRequest
from seqtok.runs.base import AssumedData
from seqtok.runs.judge.orders.ordering import Contest, is_judged
from seqtok.runs.judge.orders.suite import SuiteConfig, training_flops
from seqtok.runs.settings import precision_words


def plan_suite(suite: SuiteConfig) -> dict[str, Any]:
    """Measured on the two trainings of a tokenizer and its sequence model, and carried over to the others by their
    operations: images a second, how many contests are left, and hours of their trainings one after the other;
    judgements are not counted. Raises ConfigError or DataError."""
    contests = [Contest(name, seed) for seed in suite.seeds for name in suite.contestants]
    name, seed = suite.contestants[0], suite.seeds[0]
    tokenizer, generator = suite.tokenizer_run(name, seed), suite.generator_run(name, seed)
    words = CaptionTokenizer.load(suite.data / CAPTIONS_FILE).vocab_size
    samples = read_manifest(suite.data).splits["train"].samples
    latents = (tokenizer.model.num_latents, tokenizer.model.latent_dim)
    assumed = AssumedData(words, latents, samples)
    rates, seconds, operations = dict[str, float](), 0.0, 0.0
    for run, stage in ((tokenizer, suite.tokenizer), (generator, suite.generator)):
        own = [*stage.settings, *precision_words(suite.precision), f"data.folder={run.data.folder}", f"out={run.out}"]
        rates[stage.config] = answer_plan(stage.config, own, PlanRequest(assumed=assumed))["time"]["images_per_s"]
        seconds += run.train.images / rates[stage.config]
        operations += training_flops(run, assumed)
    left = [contest for contest in contests if not is_judged(suite, contest)]
    each = {name: _operations(suite, name, assumed) for name in {contest.name for contest in left}}
    planned = sum(each[contest.name] for contest in left)
    hours = seconds * planned / operations / 3600
    return {"images_per_s": rates, "contests": len(contests), "left": len(left), "hours": hours}


def _operations(suite: SuiteConfig, name: str, assumed: AssumedData) -> float:
    """Of a contestant's trainings, whose latents come in the groups of its own bottleneck."""
    runs, model = suite.runs(name, suite.seeds[0]), suite.tokenizer_run(name, suite.seeds[0]).model
    own = replace(assumed, groups=build_bottleneck(model.bottleneck, model).groups)
    return sum(training_flops(run, own) for run in runs.values())
