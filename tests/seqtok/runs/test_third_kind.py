"""A third kind of run needs a file of its own and a line in kinds.py: it trains, continues, is exported and planned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from data_pipelines.reading.loader import ReadConfig
from seqtok.runs import kinds
from seqtok.runs.base import AssumedData, TrainingRun, Workload
from seqtok_core.foundation.config import Config
from seqtok_core.training import World
from tests.seqtok.commands.test_commands import seqtok
from tests.seqtok_core.training.toy import DEFAULTS, LENGTH, WORDS, StoppedLoader, ToyBatch, ToyLoader, ToyObjective

STOP_AFTER = 5  # steps


class Words(Config):
    folder: str = "alphabet"


class Shape(Config):
    cache: int = 0  # the name of a key that may change elsewhere: here it may not


class AlphabetRun(TrainingRun):
    kind: Literal["alphabet"]
    data: Words = Words()
    model: Shape = Shape()
    stopped: bool = False

    def build(self) -> tuple[nn.Module, Any]:
        world = World.from_environment()
        loader = ToyLoader(self.train.batch, self.train.micro_batch_of(world.size), world.rank, world.size)
        return ToyObjective(), AlphabetLoader(StoppedLoader(loader, STOP_AFTER) if self.stopped else loader)

    def parameters(self) -> tuple[int, str]:
        return sum(p.numel() for p in ToyObjective().parameters()), ""

    def hooks(self) -> AlphabetRun:
        return self

    def on_sample(self, module: nn.Module, folder: Path, images: int) -> None:
        raise AssertionError("not asked for")

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(module.state_dict(), folder / "model.safetensors")

    def content(self, loader: Any) -> dict[str, str]:
        return {"data_fingerprint": self.data.folder}

    def workload(self, assumed: AssumedData, rows: int) -> Workload:
        def batch(count: int) -> ToyBatch:
            return ToyBatch(torch.arange(count * LENGTH).reshape(count, LENGTH) % WORDS, [str(i) for i in range(count)])

        return Workload(ToyObjective(), batch, assumed.samples, 1, 1, None, ReadConfig(), ["letters"])


class AlphabetLoader:
    fingerprint = "letters"
    samples = 26

    def __init__(self, inner: Any) -> None:
        self._inner, self.global_batch = inner, inner.global_batch

    def iterate(self, start_step: int) -> Iterator[ToyBatch]:
        return self._inner.iterate(start_step)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(kinds.RUNS, "alphabet", AlphabetRun)
    path = tmp_path / "alphabet.yaml"
    path.write_text(yaml.safe_dump({"kind": "alphabet", "out": str(tmp_path / "whole"), "train": DEFAULTS}))
    return path


def test_it_trains_and_continues_to_the_same_bits(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    status, _, err = seqtok(capsys, "train", config)
    assert status == 0, err
    status, _, err = seqtok(capsys, "train", config, f"out={tmp_path / 'parts'}", "stopped=true")
    assert status == 75, err
    written = tmp_path / "parts" / "config.yaml"
    written.write_text(written.read_text().replace("stopped: true", "stopped: false"))
    status, _, err = seqtok(capsys, "train", config, f"out={tmp_path / 'parts'}", "train.keep=7")
    assert status == 0, err
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_may_change_is_a_whole_path(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert seqtok(capsys, "train", config)[0] == 0
    status, _, err = seqtok(capsys, "train", config, "train.zero_stage=1", "train.keep=1")
    assert status == 0, err
    status, _, err = seqtok(capsys, "train", config, "model.cache=1")
    assert status == 1
    assert "model.cache: 0 there, 1 here" in err


def test_its_checkpoint_becomes_a_model_folder(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert seqtok(capsys, "train", config)[0] == 0
    status, _, err = seqtok(capsys, "checkpoint", "export", tmp_path / "whole", tmp_path / "model")
    assert status == 0, err
    name = "model.safetensors"
    assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "whole" / "model" / name).read_bytes()


def test_it_is_planned(config: Path, capsys: pytest.CaptureFixture[str]):
    status, out, err = seqtok(capsys, "plan", config, "--gpu", "h100", "--samples", 26, "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["kind"] == "alphabet"
    assert answer["parameters"]["total"] == sum(p.numel() for p in ToyObjective().parameters())
    assert "letters" in answer["assumptions"]


def test_a_dry_run_writes_nothing(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    status, out, err = seqtok(capsys, "train", config, "--dry-run")
    assert status == 0, err
    assert "would train" in out
    assert not (tmp_path / "whole").exists()
