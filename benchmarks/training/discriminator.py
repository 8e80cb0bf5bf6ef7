"""How a discriminator should train: as a group of its own in the tokenizer's engine, or in a second engine.

    python -m benchmarks.training.discriminator [--out benchmarks/results/discriminator.json]

The demo's tokenizer learns random pictures for `--steps` steps of 64 with a convolutional discriminator on its whole
decodings, in a process per variant, the variants in turn `--rounds` times: seconds per step (median of all), most
resident memory, and the median norm of the generator's gradient before its clip.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import describe_command, describe_machine
from data_pipelines.samples import ImageTextBatch
from seq_tokenizer import TokenizerObjective
from seq_tokenizer.losses.base import View
from seqtok.runs.base import AssumedData
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.processes.distributed import World, connect

VARIANTS = ("alone", "one engine", "two engines")
_WARM = 5
_RATES = {"lr": 2e-4, "betas": (0.5, 0.9)}


def discriminator() -> nn.Module:
    """Patches of 32 px pictures (PatchGAN, arXiv:1611.07004)."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for inside, outside in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inside, outside, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(128, 1, 4))


def fooled(judge: nn.Module, fake: Tensor) -> Tensor:
    """The generator's part: the judge's weights are taken as they are."""
    fixed = {name: p.detach() for name, p in judge.named_parameters()}
    return -torch.func.functional_call(judge, fixed, fake).mean()


def seen_through(judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The judge's part (hinge)."""
    return (1 - judge(real)).relu().mean() + (1 + judge(fake.detach())).relu().mean()


class Watched(TokenizerObjective):
    """Hands its view on, so that nothing is encoded and decoded twice."""

    view: View | None = None

    def _view(self, batch: ImageTextBatch) -> tuple[View, dict[str, Tensor]]:
        self.view, losses = super()._view(batch)
        return self.view, losses


class Together(nn.Module):
    def __init__(self, tokenizer: Watched, judge: nn.Module | None, own: bool) -> None:
        super().__init__()
        self.tokenizer, self.own = tokenizer, own
        self.judge = judge if own else None
        self.other = [] if own or judge is None else [judge]  # of another engine: no parameter of this one

    def muon_excluded(self) -> set[str]:
        return {f"tokenizer.{name}" for name in self.tokenizer.muon_excluded()}

    def own_rates(self) -> dict[str, Any]:
        return {"judge": _RATES} if self.own else {}

    def forward(self, batch: ImageTextBatch) -> dict[str, Tensor]:
        losses = self.tokenizer(batch)
        judge = self.judge or next(iter(self.other), None)
        if judge is None:
            return losses
        view, self.tokenizer.view = self.tokenizer.view, None
        assert view is not None
        self.fake = view.whole.detach()
        losses["loss"] = losses["loss"] + 0.1 * fooled(judge, view.whole)
        if self.judge is not None:
            losses["loss"] = losses["loss"] + seen_through(self.judge, view.pixels, view.whole)
        return losses


class Alone(nn.Module):
    def __init__(self, judge: nn.Module) -> None:
        super().__init__()
        self.judge = judge

    def own_rates(self) -> dict[str, Any]:
        return {"judge": _RATES}

    def forward(self, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"loss": seen_through(self.judge, *pair)}


def measure(variant: str, steps: int) -> dict[str, Any]:
    torch.set_num_threads(2)
    world = World.from_environment()
    connect(world)
    run = load_kind(TokenizerRun, "demo-tokenizer", ["data.folder=/none"])
    work = run.workload(AssumedData(vocab=512), 64)
    config: TrainConfig = run.train
    batch = work.batch(64)
    judge = None if variant == "alone" else discriminator()
    assert isinstance(work.objective, TokenizerObjective)
    watched = Watched(work.objective.tokenizer, work.objective.config)
    objective = Together(watched, judge, own=variant == "one engine")
    first = Engine(objective, config, World(0, 1, 0, world.device))
    second = None
    if variant == "two engines":
        assert judge is not None
        second = Engine(Alone(judge), config, World(0, 1, 0, world.device))
    seconds, norms = [], []
    for step in range(_WARM + steps):
        part = replace(batch, index=batch.index + 64 * step)
        began = time.perf_counter()
        first.backward(first.forward(part)["loss"])
        first.step(step * 64)
        if second is not None:
            second.backward(second.forward((part.pixels(), objective.fake))["loss"])
            second.step(step * 64)
        seconds.append(time.perf_counter() - began)
        norms.append(first.gradient_norm)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"seconds": seconds[_WARM:], "peak_mib": peak, "norms": [float(n) for n in norms[_WARM:] if n is not None]}


def _child(variant: str, steps: int, queue: Any) -> None:
    queue.put(measure(variant, steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    context = multiprocessing.get_context("spawn")
    for _ in range(args.rounds):
        for variant in VARIANTS:
            queue = context.Queue()
            child = context.Process(target=_child, args=(variant, args.steps, queue))
            child.start()
            found[variant].append(queue.get())
            child.join()
    rows = {
        variant: {
            "seconds_per_step": statistics.median(s for part in parts for s in part["seconds"]),
            "peak_mib": max(part["peak_mib"] for part in parts),
            "gradient_norm": statistics.median(n for part in parts for n in part["norms"]),
        }
        for variant, parts in found.items()
    }
    result = {"command": describe_command("training.discriminator"), "machine": describe_machine(), "variants": rows}
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
