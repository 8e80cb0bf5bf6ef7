"""A run goes on at another ZeRO stage and with another number of processes, from the place in its data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from seqtok_core.foundation.errors import Preempted
from seqtok_core.training.checkpoints import checkpoint, reading
from tests.seqtok_core.training.toy import ToyObjective, lines, train_toy, under_torchrun, weights

pytestmark = pytest.mark.slow

# name -> stage of two processes, then of one, then of two again; four steps each
CHAINS = {
    "1-2-1": (1, 2, 1),
    "3-3-3": (3, 3, 3),
    "0-0-0": (0, 0, 0),
    "1-3-2": (1, 3, 2),
    "3-1-0": (3, 1, 0),
}
BEHIND = {"background_save": True, "checkpoint_every": 16}
SETTINGS = {"schedule": "cosine", "micro_batch": 4, "ema_every": 2}


def job(root: Path, name: str, **more: object) -> dict[str, object]:
    seen = root / f"seen_{name}"
    seen.mkdir(exist_ok=True)
    return {"folder": str(root / name), "seen": str(seen), **SETTINGS, **more}


def launch(jobs: list[dict[str, object]]) -> None:
    finished = under_torchrun(jobs)
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.fixture(scope="module")
def chains(tmp_path_factory) -> Path:
    """Two launches of two processes, with one process between them; every chain in its own folder."""
    root = tmp_path_factory.mktemp("chains")
    begin = [job(root, name, zero_stage=stages[0], stop_after=4) for name, stages in CHAINS.items()]
    begin += [job(root, f"same{stage}", zero_stage=stage, stop_after=5, **BEHIND) for stage in range(4)]
    launch([job(root, f"whole{stage}", zero_stage=stage) for stage in range(4)] + begin)
    for name, stages in CHAINS.items():
        middle = job(root, name, zero_stage=stages[1], stop_after=8)
        with pytest.raises(Preempted):
            train_toy(Path(str(middle.pop("folder"))), **{**middle, "micro_batch": 8})
    end = [job(root, name, zero_stage=stages[2]) for name, stages in CHAINS.items()]
    launch(end + [job(root, f"same{stage}", zero_stage=stage, **BEHIND) for stage in range(4)])
    return root


@pytest.mark.parametrize("name", CHAINS)
def test_the_loss_is_that_of_the_uninterrupted_run(name, chains):
    ours, theirs = lines(chains / name), lines(chains / f"whole{CHAINS[name][0]}")
    assert [row["step"] for row in ours] == list(range(1, 13))
    worst = {key: max(abs(a[key] - b[key]) for a, b in zip(ours, theirs, strict=True)) for key in ours[0]}
    print(name, worst)
    assert max(worst[key] for key in ("loss", "words", "lr", "skipped")) <= 1e-5
    for key, value in weights(chains / "whole1").items():
        torch.testing.assert_close(weights(chains / name)[key], value, rtol=0, atol=2e-5)


@pytest.mark.parametrize("stage", range(4))
def test_two_processes_that_were_stopped_end_with_the_same_bits(stage, chains):
    """Those that were stopped save in the background, the others do not: the files are the same."""
    ours, theirs = weights(chains / f"same{stage}"), weights(chains / f"whole{stage}")
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    assert lines(chains / f"same{stage}") == lines(chains / f"whole{stage}")
    parts = [chains / f"{kind}{stage}" / "checkpoints" / "step_00000012" for kind in ("same", "whole")]
    ours, theirs = (
        {k: v for k, v in checkpoint.read_checkpoint_manifest(p)["files"].items() if "part" in k} for p in parts
    )
    assert ours == theirs  # momenta, counts and averages too
    assert len(ours) == 2


@pytest.mark.parametrize("stage", range(4))
def test_one_process_reads_the_weights_of_two_without_an_engine(stage, chains):
    objective = ToyObjective()
    with torch.no_grad():
        objective.frozen.weight.zero_()
    reading.fill(objective, reading.find_checkpoint(chains / f"whole{stage}"), averaged=True)
    for name, value in weights(chains / f"whole{stage}").items():
        assert torch.equal(objective.state_dict()[name], value), name


@pytest.mark.parametrize("name", [*CHAINS, "same0", "whole0"])
def test_every_sample_is_seen_once_per_epoch(name, chains):
    files = sorted((chains / f"seen_{name}").glob("*.txt"))
    seen = Counter(line for file in files for line in file.read_text().splitlines())
    assert seen == Counter(f"{epoch}-{i}" for epoch in range(3) for i in range(32))
    assert len(files) == (3 if name in CHAINS else 2)
