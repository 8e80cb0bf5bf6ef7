"""A tokenizer with a codebook through the training service: stopped and continued, and on two processes (gloo)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_pipelines.samples import ImageTextBatch
from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seqtok_core.foundation.errors import Preempted
from seqtok_core.training import TrainConfig, World, train
from tests.seq_tokenizer.toy import rows_of, toy_batch, toy_tokenizer
from tests.seqtok_core.training.toy import DEFAULTS, StoppedLoader, ToyLoader, lines, save_weights, under_torchrun

BOTTLENECKS: dict[str, dict[str, Any]] = {
    "vq": {"kind": "vq", "codebook_size": 32},
    "residual_vq": {"kind": "residual_vq", "codebook_size": 16, "quantizers": 2},
    "fsq": {"kind": "fsq", "levels": [5, 4, 3]},
    "kl": {"kind": "kl"},
}


class PictureLoader(ToyLoader):
    """64 random pictures, over and over; process r takes every world-th."""

    def iterate(self, start_step: int) -> Iterator[ImageTextBatch]:
        step, whole = start_step, toy_batch(64)
        while True:
            mine = [(step * self.global_batch + i) % 64 for i in range(self.rank, self.global_batch, self.world)]
            for begin in range(0, len(mine), self.micro):
                yield rows_of(whole, mine[begin : begin + self.micro])
            step += 1


def train_tokenizer(folder: Path, kind: str, stop_after: int | None = None, **settings: Any) -> Path:
    config = TrainConfig(**{**DEFAULTS, "checkpoint_every": 32, **settings})
    world = World.from_environment()
    loader: Any = PictureLoader(config.batch, config.micro_batch_of(world.size), world.rank, world.size)
    if stop_after is not None:
        loader = StoppedLoader(loader, stop_after)
    tokenizer = toy_tokenizer(text=False, bottleneck=BOTTLENECKS[kind])
    objective = TokenizerObjective(tokenizer, TokenizerTrainingConfig()).train()
    train(objective, loader, config, folder, resolved={}, on_finish=save_weights)
    return folder


def saved(folder: Path) -> dict[str, Tensor]:
    """Weights, averages, buffers and optimizer states of the last checkpoint."""
    last = max((folder / "checkpoints").iterdir())
    return {name: value for part in sorted(last.glob("*.safetensors")) for name, value in load_file(part).items()}


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = saved(one), saved(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert lines(one) == lines(other)


@pytest.mark.parametrize("kind", BOTTLENECKS)
def test_a_stopped_run_ends_with_the_same_bits(kind: str, tmp_path: Path):
    whole = train_tokenizer(tmp_path / "whole", kind)
    with pytest.raises(Preempted):
        train_tokenizer(tmp_path / "parts", kind, stop_after=5)
    assert_same(train_tokenizer(tmp_path / "parts", kind), whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vq", "residual_vq"])
def test_two_processes_keep_one_codebook(kind: str, tmp_path: Path):
    """The codebook of both ranks at every step, and that of one process but for rounding."""
    job = {"folder": str(tmp_path / "two"), "kind": kind, "images": 48}
    finished = under_torchrun([job], program=__file__)
    assert finished.returncode == 0, finished.stderr[-3000:]
    first, second = (torch.load(tmp_path / "two" / f"books_{rank}.pt") for rank in range(2))
    assert len(first) >= 6, "a forward pass for each step"
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(first[0][name], first[-1][name]) for name in first[0])
    alone = torch.load(train_tokenizer(tmp_path / "one", kind, images=48) / "model" / "weights.pt")
    for name, value in torch.load(tmp_path / "two" / "model" / "weights.pt").items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-4, msg=name)


def main(jobs: list[dict[str, Any]]) -> None:
    """Train, and keep this rank's codebooks and their buffers as each forward pass found them."""
    torch.set_num_threads(1)
    plain = TokenizerObjective.forward
    for job in jobs:
        folder, seen = Path(job.pop("folder")), []

        def noting(self: TokenizerObjective, batch: ImageTextBatch, seen: list[Any] = seen) -> dict[str, Tensor]:
            seen.append({n: v.detach().clone() for n, v in self.state_dict().items() if "_codebook." in n})
            return plain(self, batch)

        TokenizerObjective.forward = noting  # type: ignore[method-assign]
        train_tokenizer(folder, **job)
        torch.save(seen, folder / f"books_{World.from_environment().rank}.pt")


if __name__ == "__main__":
    from seqtok_core.training.processes.distributed import leave

    main(json.loads(sys.argv[-1]))
    leave(0)
