"""A fresh process that says what cannot be counted: memory of the imports, seconds of a real step on this machine.

    python -m seqtok.plan.probe < request.json    (started by answer.py; one line of JSON comes back)

A fresh one, because memory that a process once had is not given back reliably.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from seqtok.runs.base import AssumedData, TrainingRun, batch_rows
from seqtok.runs.kinds import load_training_run
from seqtok_core.training.costs.hardware import synchronise
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.processes.distributed import World, connect

_WARM = 8  # steps before the clock counts: kernels are made for each shape that text comes in
_PERIOD = 8  # different batches, used in turn


def main() -> None:
    request = json.loads(sys.stdin.read())
    run = load_training_run(request["config"], request["overrides"])
    if isinstance(run.train.threads, int):
        torch.set_num_threads(run.train.threads)
    world = World.from_environment()
    connect(world)
    answer: dict[str, Any] = {"base_bytes": _base(run, world), "device": str(world.device)}
    if request["steps"]:
        assumed = request["assumed"]
        words = AssumedData(assumed["vocab"], tuple(assumed["latents"]) if assumed["latents"] else None, None)
        answer |= _steps(run, words, world, request["micro_batch"], request["accumulation"], request["steps"])
    print("\n" + json.dumps(answer))


def _base(run: TrainingRun, world: World) -> int:
    """Resident bytes once everything is imported and an engine of a few weights has made a step."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401  a run writes to it

    import seqtok.runs.train  # noqa: F401

    run.import_parts()
    one = run.train.model_copy(update={"batch": 1, "micro_batch": None, "zero_stage": 0})
    engine = Engine(_Line(), one, World(0, 1, 0, world.device))
    for _ in range(2):
        engine.backward(engine.forward(torch.ones(1, 64, device=world.device))["loss"])
        engine.step(0)
    engine.close()
    return int(psutil.Process().memory_info().rss)


class _Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.line(x).float().square().mean()}


def _steps(
    run: TrainingRun, assumed: AssumedData, world: World, micro: int, accumulation: int, steps: int
) -> dict[str, Any]:
    """Median seconds of `steps` optimizer steps, and this process's memory at their end."""
    torch.manual_seed(run.train.seed)
    work = run.workload(assumed, _PERIOD * micro)
    whole = work.batch(_PERIOD * micro)
    batches = [batch_rows(whole, rows).to(world.device) for rows in torch.arange(len(whole)).split(micro)]
    config = run.train.model_copy(update={"batch": micro * accumulation, "micro_batch": micro})
    engine = Engine(work.objective, config, World(0, 1, 0, world.device))
    seconds = []
    for step in range(_WARM + steps):
        synchronise(world.device)
        began = time.perf_counter()
        for part in range(accumulation):
            engine.backward(engine.forward(batches[(step * accumulation + part) % _PERIOD])["loss"])
            engine.step(step * config.batch)
        synchronise(world.device)
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated(world.device) if world.device.type == "cuda" else peak_rss()
    engine.close()
    timed = seconds[_WARM:]
    return {"step_seconds": statistics.median(timed), "peak_bytes": int(peak), "steps": steps}


def peak_rss() -> int:
    """Most resident bytes of this process so far (Linux); now, where the system does not say."""
    for line in Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
