"""Two processes with half the batch each follow one process, for both real stages, at every ZeRO stage (fp32)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seqtok.export.run import export_latents

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "tests" / "configs"
pytestmark = pytest.mark.slow


def train(processes: int, stage: str, *words: str) -> list[float]:
    """Losses of a run of `seqtok STAGE train`, one per step."""
    out = next(word.removeprefix("out=") for word in words if word.startswith("out="))
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d"]
        launcher += ["--rdzv-endpoint", "localhost:0", "-m"]
    command = [*launcher, "seqtok", stage, "train", str(CONFIGS / f"tiny-{stage}.yaml"), *words, "train.log_every=1"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    lines = (Path(out) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scenes, latents of a tokenizer trained by one process, and what one process made of both."""
    root = tmp_path_factory.mktemp("two")
    data, latents = root / "data", root / "latents"
    prepare({"train": ScenesSource("train", 200, 32)}, data, PrepareConfig(name="scenes", size=32))
    train_vocabulary(data, 400)
    train(1, "tokenizer", f"data.folder={data}", f"out={root / 'one_tokenizer'}")
    export_latents(root / "one_tokenizer" / "model", data, latents)
    train(1, "generator", f"data.folder={latents}", f"out={root / 'one_generator'}")
    return {"root": root, "tokenizer": data, "generator": latents}


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_two_processes_follow_one(stage: str, zero: int, folders: dict[str, Path], tmp_path: Path):
    lines = (folders["root"] / f"one_{stage}" / "metrics.jsonl").read_text().splitlines()
    one = [json.loads(line)["loss"] for line in lines]
    two = train(2, stage, f"data.folder={folders[stage]}", f"out={tmp_path / 'two'}", f"train.zero_stage={zero}")
    assert len(one) == len(two) == 20
    worst = max(abs(a - b) for a, b in zip(one, two, strict=True))
    print(f"{stage}, ZeRO {zero}: largest difference of the loss {worst:.2e}")
    assert worst < 1e-3
