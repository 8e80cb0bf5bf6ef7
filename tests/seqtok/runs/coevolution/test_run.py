"""Training together through the service: stopped and continued, on two processes at every stage, and what it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ar_model import GeneratorObjective, GeneratorObjectiveConfig, SeqGenerator
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seq_tokenizer import SeqTokenizer, TokenizerObjective, TokenizerTrainingConfig
from seqtok.runs.coevolution.objective import CoevolutionConfig, CoevolutionObjective
from seqtok_core.foundation.errors import Preempted
from seqtok_core.training import TrainConfig, World, train
from tests.ar_model.toy import toy_generator
from tests.seq_tokenizer.bottlenecks.test_discrete_run import PictureLoader, assert_same
from tests.seq_tokenizer.toy import toy_tokenizer
from tests.seqtok.commands.test_commands import seqtok
from tests.seqtok_core.training.toy import DEFAULTS, StoppedLoader, save_weights, under_torchrun

TINY = Path(__file__).parents[3] / "configs" / "tiny-coevolution.yaml"
FOLDERS = ("tokenizer", "generator")


def train_both(folder: Path, stop_after: int | None = None, **settings: Any) -> Path:
    config = TrainConfig(**{**DEFAULTS, "checkpoint_every": 32, **settings})
    world = World.from_environment()
    loader: Any = PictureLoader(config.batch, config.micro_batch_of(world.size), world.rank, world.size)
    if stop_after is not None:
        loader = StoppedLoader(loader, stop_after)
    generator = toy_generator()
    objective = CoevolutionObjective(
        TokenizerObjective(toy_tokenizer(text=False), TokenizerTrainingConfig()),
        GeneratorObjective(generator, GeneratorObjectiveConfig(), generator.spec),
        CoevolutionConfig(reach=1.0, decoded_weight=0.5),
    )
    train(objective.train(), loader, config, folder, resolved={}, on_finish=save_weights)
    return folder


def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path):
    """Weights, averages, optimizer states and the running statistics."""
    whole = train_both(tmp_path / "whole")
    with pytest.raises(Preempted):
        train_both(tmp_path / "parts", stop_after=5)
    assert_same(train_both(tmp_path / "parts"), whole)


@pytest.mark.slow
def test_two_processes_follow_one_at_every_stage(tmp_path: Path):
    jobs = [{"folder": str(tmp_path / f"two_{stage}"), "images": 48, "zero_stage": stage} for stage in range(4)]
    finished = under_torchrun(jobs, program=__file__)
    assert finished.returncode == 0, finished.stderr[-3000:]
    alone = torch.load(train_both(tmp_path / "one", images=48) / "model" / "weights.pt")
    assert "tokenizer.tokenizer.latent_std" in alone
    for stage in range(4):
        for name, value in torch.load(tmp_path / f"two_{stage}" / "model" / "weights.pt").items():
            torch.testing.assert_close(value, alone[name], rtol=0, atol=2e-4, msg=f"{name}, ZeRO {stage}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together") / "data"
    sources = {"train": ScenesSource("train", 96, 16), "val": ScenesSource("val", 24, 16)}
    prepare({**sources}, folder, PrepareConfig(name="scenes", size=16))
    train_vocabulary(folder, 400)
    return folder


def test_it_leaves_a_tokenizer_and_a_sequence_model_that_fit_each_other(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    words = [f"data.folder={data}", f"out={out}", "validation={every: 64}"]
    status, _, err = seqtok(capsys, "train", TINY, *words)
    assert status == 0, err
    looks = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    assert [row["images"] for row in looks] == [64, 96]
    assert {"loss", "sequence_loss", "tokenizer_loss", "psnr_1"} <= looks[-1].keys()
    assert looks[-1]["loss"] == pytest.approx(
        looks[-1]["tokenizer_loss"] + looks[-1]["sequence_loss"] + looks[-1]["expected_loss"], rel=1e-5
    )
    assert (out / "best" / "generator" / "model.safetensors").is_file()
    tokenizer, generator = (out / "model" / name for name in FOLDERS)
    spec = SeqTokenizer.from_pretrained(tokenizer).spec
    SeqGenerator.from_pretrained(generator).spec.require_same(spec, "the sequence model", "the tokenizer")
    asked = ["generator", "sample", generator, tokenizer, "--prompt", "a red circle", "--out", tmp_path / "a.png"]
    status, _, err = seqtok(capsys, *asked)
    assert status == 0, err
    status, _, err = seqtok(capsys, "checkpoint", "export", out, tmp_path / "again")
    assert status == 0, err
    for name in FOLDERS:
        weights = [load_file(folder / name / "model.safetensors") for folder in (out / "model", tmp_path / "again")]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    again = [f"data.folder={data}", f"out={tmp_path / 'warm'}", f"init_from={out / 'model'}", "train.images=64"]
    status, _, err = seqtok(capsys, "train", TINY, *again)
    assert status == 0, err


def test_it_is_planned(data: Path, capsys: pytest.CaptureFixture[str]):
    status, out, err = seqtok(capsys, "plan", TINY, f"data.folder={data}", "--gpu", "h100", "--json")
    assert status == 0, err
    both = json.loads(out)["parameters"]["total"]
    status, out, err = seqtok(capsys, "train", TINY, f"data.folder={data}", "--dry-run")
    assert status == 0, err
    assert f"{both / 1e6:.2f} M parameters" in out


if __name__ == "__main__":
    from seqtok_core.training.processes.distributed import leave

    torch.set_num_threads(1)
    for job in json.loads(sys.argv[-1]):
        train_both(Path(job.pop("folder")), **job)
    leave(0)
