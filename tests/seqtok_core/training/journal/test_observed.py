"""What a run tells: lines, environment, summary, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training import summarise
from seqtok_core.training.journal.metrics import CLOCK_FIELDS
from seqtok_core.training.journal.summary import TrainResult
from tests.seqtok_core.training.toy import lines, train_toy

WANDB = {"project": "toys", "mode": "offline"}


class FakeWandb(types.ModuleType):
    """The few words of wandb that are used, and what they were told."""

    class errors:
        class Error(Exception): ...

    def __init__(self, refuses: bool = False, breaks_at: int | None = None) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.finished = 0
        self._refuses, self._breaks_at = refuses, breaks_at

    def init(self, **settings: Any) -> FakeWandb:
        if self._refuses:
            raise self.errors.Error("api_key not configured")
        self.started.append(settings)
        return self

    def log(self, line: dict[str, Any], step: int) -> None:
        if step == self._breaks_at:
            raise BrokenPipeError("service is gone")
        self.lines.append({**line, "at": step})

    def finish(self) -> None:
        self.finished += 1


def test_wandb_gets_every_line_and_a_continued_run_continues_its_curve(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = {"checkpoint_every": 48, "keep": 9}
    train_toy(tmp_path, wandb=WANDB, **settings)
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000012")
    train_toy(tmp_path, wandb={**WANDB, "mode": "online"}, **settings)  # how it is watched is no other run
    first, second = fake.started
    assert first["id"] == second["id"] == json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert (first["project"], first["name"], first["mode"], first["resume"]) == (
        "toys",
        tmp_path.name,
        "offline",
        "allow",
    )
    assert [line["at"] for line in fake.lines] == [*range(1, 13), *range(7, 13)]
    assert fake.lines[0]["loss"] == lines(tmp_path)[0]["loss"]
    assert fake.finished == 2
    train_toy(tmp_path, wandb=WANDB, overwrite=True, **settings)
    assert fake.started[2]["id"] != first["id"]  # another run, another curve


def test_wandb_is_asked_for_or_absent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    train_toy(tmp_path / "without")
    with pytest.raises(ConfigError, match="pip install wandb"):
        train_toy(tmp_path / "with", wandb=WANDB)
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(refuses=True))
    with pytest.raises(ConfigError, match="api_key not configured; log in"):
        train_toy(tmp_path / "refused", wandb=WANDB)


def test_a_service_that_breaks_off_does_not_end_the_training(tmp_path, monkeypatch, caplog):
    fake = FakeWandb(breaks_at=5)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert train_toy(tmp_path, wandb=WANDB).steps == 12
    assert "service is gone" in caplog.text
    assert len(lines(tmp_path)) == 12
    assert len(fake.lines) == 4


@pytest.mark.slow
def test_the_real_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = {"checkpoint_every": 48, "keep": 9, "wandb": WANDB}
    train_toy(tmp_path, **settings)
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000012")
    train_toy(tmp_path, **settings)
    identity = json.loads((tmp_path / "wandb.json").read_text())["id"]
    runs = [path for path in (tmp_path / "wandb").glob("offline-run-*") if path.name.endswith(identity)]
    assert runs
    assert all(list(run.glob("*.wandb")) for run in runs)


def test_lines_have_memory_and_the_share_of_the_peak(tmp_path, monkeypatch):
    monkeypatch.setattr("seqtok_core.training.costs.speed.peak_flops", lambda device, precision: (1e9, "a table"))
    monkeypatch.setattr("seqtok_core.training.costs.speed._WORTH_MEASURING_S", 0.0)
    result = train_toy(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["mfu"] > 0 and row["memory_gb"] > 0.05 for row in rows)
    assert {"mfu", "memory_gb"} <= set(CLOCK_FIELDS)
    assert result.mfu > 0
    assert result.peak_source == "a table"
    assert result.peak_memory > 50e6


def test_a_short_run_does_not_measure_its_processor(tmp_path, monkeypatch):
    def measure(*args: object) -> None:
        pytest.fail("a second of matrix products for a run of two seconds")

    monkeypatch.setattr("seqtok_core.training.costs.speed.peak_flops", measure)
    assert train_toy(tmp_path).mfu is None
    assert "mfu" not in (tmp_path / "metrics.jsonl").read_text()


def test_environment_says_what_ran_where_and_how_often(tmp_path):
    settings = {"checkpoint_every": 48, "keep": 9}
    assert train_toy(tmp_path, **settings).starts == 1
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000012")
    assert train_toy(tmp_path, **settings).starts == 2
    told = json.loads((tmp_path / "environment.json").read_text())
    wanted = (
        "command started host hosts processes device platform python processor cpus cuda driver nccl versions commit"
    )
    assert set(wanted.split()) <= told.keys()
    assert told["torch_build"]
    assert told["starts"] == 2
    assert train_toy(tmp_path, overwrite=True, **settings).starts == 1


def test_the_summary_fits_a_screen_and_names_the_model(tmp_path):
    text = summarise(train_toy(tmp_path))
    assert len(text.splitlines()) <= 12
    for part in ("96 in 12 steps, on 1 process", "images/s", "GB of main memory", "no step", str(tmp_path / "model")):
        assert part in text
    assert "continued" not in text
    result = TrainResult(
        Path("runs/a"), 2000, 512_000, 7384.0, 69.3, 3, "step_00001000", {"loss": 0.25}, processes=8, starts=3,
        mfu=0.412, peak_source="data sheet of H100, bf16 dense", peak_memory=61_000_000_000, memory_of="GPU memory",
    )  # fmt: skip
    text = summarise(result)
    for part in (
        "512,000 in 2,000 steps, on 8 processes",
        "2:03:04",
        "41.2% of the peak (data sheet of H100",
        "3 steps",
    ):
        assert part in text
    assert "61.00 GB of GPU memory at most per process" in text
    assert "2 times, last from step_00001000" in text


def test_the_documentation_names_what_may_differ_and_only_what_exists():
    from seqtok_core.training import TrainConfig

    text = (Path(__file__).parents[4] / "docs" / "training.md").read_text()
    start = text.index("`threads`, ")
    named = set(re.findall(r"`(\w+)`", text[start : text.index("may differ between", start)]))
    assert named == TrainConfig.resumable_keys()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert {"precision", "offload", "compile", "timeout_minutes", "wandb"} <= keys & set(TrainConfig.model_fields)
