"""What a checkpoint costs a training: written at once, or in the background.

    python -m benchmarks.training.checkpoint_saving [--width 2048] [--out benchmarks/results/checkpoint_saving.json]

A stack of `--layers` matrices is trained for `--steps` steps in a process of its own, without checkpoints, with
four in the foreground, and with four in the background; every state is there (weight, two momenta, average: 16
bytes per parameter). "Cost" is the time that a checkpoint adds to the training, the last one's waiting included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import describe_machine

_CHECKPOINTS = 4


@dataclass(frozen=True)
class Rows:
    x: Tensor  # (B, width)
    keys: tuple[str, ...]

    def to(self, device: torch.device | str) -> Rows:
        return Rows(self.x.to(device), self.keys)


class Stack(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))

    def muon_excluded(self) -> set[str]:
        return set()

    def forward(self, rows: Rows) -> dict[str, Tensor]:
        return {"loss": self.layers(rows.x).square().mean()}


class Noise:
    def __init__(self, batch: int, width: int) -> None:
        self.global_batch = batch
        self._rows = Rows(torch.randn(batch, width, generator=torch.Generator().manual_seed(0)), ("noise",) * batch)

    def iterate(self, start_step: int) -> Iterator[Rows]:
        self.began = time.perf_counter()
        while True:
            yield self._rows


def train_once(width: int, layers: int, batch: int, steps: int, mode: str, answer: Any) -> None:
    """Seconds of the steps and peak memory (MiB) of this process."""
    from seqtok_core.training import TrainConfig, train

    config = TrainConfig(
        images=steps * batch,
        batch=batch,
        muon_lr=None,
        log_every=steps,
        checkpoint_every=None if mode == "none" else steps * batch // _CHECKPOINTS,
        background_save=mode == "background",
    )
    with tempfile.TemporaryDirectory() as folder:
        loader = Noise(batch, width)
        train(Stack(width, layers), loader, config, Path(folder), resolved={})
        seconds = time.perf_counter() - loader.began
        sizes = [p.stat().st_size for p in Path(folder).glob("checkpoints/step_*/part_*")]
        answer.put((seconds, max(sizes), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows: list[dict[str, Any]] = []
    for mode in ("none", "foreground", "background"):
        answer = context.Queue()
        sizes = (args.width, args.layers, args.batch, args.steps)
        child = context.Process(target=train_once, args=(*sizes, mode, answer))
        child.start()
        seconds, part, memory = answer.get()
        child.join()
        count = 1 if mode == "none" else _CHECKPOINTS  # the last is always written
        row = {"saving": mode, "checkpoints": count, "seconds": round(seconds, 2), "peak_mib": round(memory)}
        if mode != "none":
            extra = (seconds - rows[0]["seconds"]) / (count - 1)
            row["cost_s"] = round(extra, 3)
        rows.append(row)
        print(f"{mode:10} {part / 2**20:7.0f} MiB each  {row}", flush=True)
    if args.out:
        sizes_used = {"width": args.width, "layers": args.layers, "batch": args.batch, "steps": args.steps}
        text = json.dumps({"machine": describe_machine(), **sizes_used, "part_mib": round(part / 2**20), "rows": rows})
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
