"""What DeepSpeed costs per step, against the same mathematics in a plain loop of PyTorch, on demo-tokenizer.

    python -m benchmarks.training.deepspeed_overhead [--rounds 12] [--out benchmarks/results/deepspeed_overhead.json]

Same objective, batches, autocast and SplitOptimizer (with clipping and the weights' average); one process. Variants
take turns in blocks, so that a machine that slows down slows all of them; overhead is the median over the rounds of
(median step of the variant / median step of the plain loop in the same round). Processor time is kept beside wall
time: it does not see other programs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_command, describe_machine
from benchmarks.training.step import scenes_batch
from data_pipelines.samples import ImageTextBatch
from seq_tokenizer import SeqTokenizer, TokenizerObjective
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.engine.engine import Engine
from seqtok_core.training.optimizer import ema
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups
from seqtok_core.training.optimizer.schedules import rate_factor
from seqtok_core.training.processes.distributed import World, connect

BAR = 0.05  # of a step, at stage 0
Step = Callable[[ImageTextBatch, int], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10, help="of a block")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--profile", choices=("plain", "0", "1", "2"), help="profile one variant and stop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batches = _batches(args.batch)
    variants: dict[str, Step] = {"plain": _plain(args.batch)}
    variants |= {f"stage {stage}": _engine(args.batch, stage) for stage in (0, 1, 2)}
    if args.profile:
        _profile(variants[args.profile if args.profile == "plain" else f"stage {args.profile}"], batches)
        return
    losses = {name: [step(batches[i % len(batches)], i) for i in range(6)] for name, step in variants.items()}
    for name, values in losses.items():  # the same mathematics, or the comparison means nothing
        if any(abs(a - b) > 2e-2 * abs(b) for a, b in zip(values, losses["plain"], strict=True)):
            raise SystemExit(f"{name}: losses {values} differ from the plain loop's {losses['plain']}")
    results = _summary(_measure(variants, batches, args.rounds, args.steps))
    for name, row in results.items():
        print(
            f"{name:8} {row['wall_ms']:8.2f} ms  overhead {row['overhead']:+.1%} (processor {row['overhead_cpu']:+.1%})"
        )
    if args.out:
        about = {"command": describe_command("deepspeed_overhead"), "machine": describe_machine()}
        about |= {"batch": args.batch, "bar": BAR}
        args.out.write_text(json.dumps({**about, "losses": losses, "variants": results}, indent=1) + "\n")


def _objective(batch: int, stage: int) -> tuple[TokenizerObjective, TrainConfig]:
    run = load_kind(TokenizerRun, "demo-tokenizer", [f"train.batch={batch}", f"train.zero_stage={stage}"])
    text = run.model.text.model_copy(update={"vocab_size": 512}) if run.model.text else None
    torch.manual_seed(0)
    return TokenizerObjective(SeqTokenizer(run.model.model_copy(update={"text": text})), run.objective), run.train


def _batches(size: int) -> list[ImageTextBatch]:
    """Four different ones."""
    whole = scenes_batch(4 * size)

    def part(rows: slice) -> ImageTextBatch:
        names = ("index", "epoch", "text_ids", "level_mask", "caption_ids", "images")
        return replace(whole, keys=whole.keys[rows], **{name: getattr(whole, name)[rows] for name in names})

    return [part(slice(i * size, (i + 1) * size)) for i in range(4)]


def _plain(batch: int) -> Step:
    objective, config = _objective(batch, 0)
    groups = parameter_groups(objective.named_parameters(), objective.muon_excluded(), config)
    optimizer = SplitOptimizer(groups, config, guarded=True)

    def step(data: ImageTextBatch, number: int) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            loss = objective(data)["loss"]
        loss.backward()
        optimizer.set_rates(rate_factor(config, number * config.batch))
        optimizer.average_decay = ema.decay_at(number, config.ema_decay) if config.ema_decay else None
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _engine(batch: int, stage: int) -> Step:
    objective, config = _objective(batch, stage)
    world = World(0, 1, 0, torch.device("cpu"))
    connect(world)
    engine = Engine(objective, config, world)

    def step(data: ImageTextBatch, number: int) -> float:
        loss = engine.forward(data)["loss"]
        engine.backward(loss)
        engine.step(number * config.batch)
        return float(loss.detach())

    return step


def _measure(
    variants: dict[str, Step], batches: list[ImageTextBatch], rounds: int, steps: int
) -> dict[str, list[tuple[float, float]]]:
    """Median seconds of a step, wall and processor, of every round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for turn in range(rounds):
        names = list(variants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            block = []
            for i in range(steps):
                wall, processor = time.perf_counter(), time.process_time()
                variants[name](batches[i % len(batches)], 100 + turn * steps + i)
                block.append((time.perf_counter() - wall, time.process_time() - processor))
            times[name].append((statistics.median(b[0] for b in block), statistics.median(b[1] for b in block)))
    return times


def _summary(times: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    def overhead(name: str, clock: int) -> float:
        pairs = zip(times[name], times["plain"], strict=True)
        return round(statistics.median(own[clock] / plain[clock] for own, plain in pairs) - 1.0, 4)

    return {
        name: {
            "wall_ms": round(1000 * statistics.median(t[0] for t in rounds), 3),
            "processor_ms": round(1000 * statistics.median(t[1] for t in rounds), 3),
            "overhead": overhead(name, 0),
            "overhead_cpu": overhead(name, 1),
            "rounds_wall_ms": [round(1000 * t[0], 2) for t in rounds],
        }
        for name, rounds in times.items()
    }


def _profile(step: Step, batches: list[ImageTextBatch]) -> None:
    """Where Python spends its time, most expensive first."""
    import cProfile
    import pstats

    for i in range(10):
        step(batches[i % len(batches)], i)
    profiler = cProfile.Profile()
    profiler.enable()
    for i in range(40):
        step(batches[i % len(batches)], 10 + i)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
