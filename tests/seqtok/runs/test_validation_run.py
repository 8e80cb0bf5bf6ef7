"""Both stages look at a held-out split: its loss is the objective's, and the best model is one to use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seqtok.export.run import export_latents
from seqtok.runs.base import TrainingRun, held_out_means
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok.runs.train import train_run
from seqtok_core.foundation.errors import SeqtokError
from tests.seqtok.commands.test_commands import TINY, save_tokenizer

SIZES = ["train.images=64", "train.batch=16", "train.warmup_images=16", "train.sample_every=null", "train.threads=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    sources = {split: ScenesSource(split, count, 32) for split, count in (("train", 64), ("val", 70))}
    prepare(sources, root / "scenes", PrepareConfig(name="scenes", size=32))
    train_vocabulary(root / "scenes", 400)
    export_latents(save_tokenizer(root / "tokenizer", root / "scenes"), root / "scenes", root / "latents")
    return {"tokenizer": root / "scenes", "generator": root / "latents"}


def run_of(kind: str, data: dict[str, Path], out: Path, *words: str) -> TrainingRun:
    cls = {"tokenizer": TokenizerRun, "generator": GeneratorRun}[kind]
    return load_kind(cls, TINY / f"tiny-{kind}.yaml", [*SIZES, f"data.folder={data[kind]}", f"out={out}", *words])


def told(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_the_held_out_loss_is_that_of_the_model_that_is_kept(kind: str, data, tmp_path: Path):
    run = run_of(kind, data, tmp_path / "run", "validation.every=32", "validation.samples=66")
    train_run(run)
    rows = told(tmp_path / "run")
    assert [row["images"] for row in rows] == [32, 64]
    assert rows[-1]["loss"] == min(row["loss"] for row in rows), "else another one is in `best`"
    objective, _ = run.build()
    part = getattr(objective, kind)
    part.load_state_dict(type(part).from_pretrained(tmp_path / "run" / "best").state_dict())
    hooks = run.hooks()
    assert len(hooks._held_out) == 66
    again = hooks.on_validate(objective.eval())
    assert again == pytest.approx({name: rows[-1][name] for name in again}, rel=1e-5)
    assert ("psnr_4" in again) == (kind == "tokenizer")
    assert held_out_means(objective, hooks._held_out, torch.device("cpu"))["loss"] == again["loss"], "no dice"


def test_it_is_off_by_default_and_may_be_turned_on_later(data, tmp_path: Path):
    train_run(run_of("tokenizer", data, tmp_path / "run"))
    assert not (tmp_path / "run" / "validation.jsonl").exists()
    assert "validation" not in (tmp_path / "run" / "config.yaml").read_text()
    longer = ("train.images=96", "validation.every=32")
    result = train_run(run_of("tokenizer", data, tmp_path / "run", *longer))
    assert result is not None
    assert result.resumed_from == "step_00000004"
    assert [row["images"] for row in told(tmp_path / "run")] == [96]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["validation.split=vall"], "no split 'vall'; there are train, val"),
        (["validation.folder=/no/such"], "/no/such"),
        (["validation.every=0"], r"validation\.every"),
        (["validation.samles=3"], r"did you mean validation\.samples"),
    ],
)
@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_what_is_not_there_is_said_before_the_training(kind, words, message, data, tmp_path: Path):
    with pytest.raises(SeqtokError, match=message):
        train_run(run_of(kind, data, tmp_path / "run", "validation.every=32", *words))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_look_once_and_nobody_waits_for_ever(data, tmp_path: Path):
    """Captions are contrasted over all processes, but of held-out data one process asks alone."""
    words = [*SIZES, "validation.every=32", "train.timeout_minutes=1", f"data.folder={data['tokenizer']}"]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command = [sys.executable, *launch, "--rdzv-endpoint", "localhost:0", "-m", "seqtok", "tokenizer", "train"]
    command += [str(TINY / "tiny-tokenizer.yaml"), *words, f"out={tmp_path / 'two'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    train_run(run_of("tokenizer", data, tmp_path / "one", "validation.every=32"))
    for ours, theirs in zip(told(tmp_path / "two"), told(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
