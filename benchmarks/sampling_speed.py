"""Seconds from a prompt to its latents at MAR-B's size, beside what streaming the weights once a use would take.

    python -m benchmarks.sampling_speed [--threads 2] [--results FILE]

A Transformer of width 768, depth 24, a flow head of 1024 x 6, 32 tokens of 16 channels, random weights, guidance 3.
The limit: one image reads the Transformer's weights once a token and the head's once a step and token; a batch shares
the reading. Bandwidth is measured in the same run, on a buffer that no cache holds. Best of several; run it on a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ar_model import GeneratorConfig, SeqGenerator
from benchmarks.machine import describe_machine
from data_pipelines.captions.tokenizer import CaptionTokenizer
from seq_tokenizer import LatentSpec
from seqtok_core.training.costs.hardware import emulates_bf16

TOKENS, DIM = 32, 16
SIZE = {"width": 768, "depth": 24, "heads": 12, "head": {"kind": "flow", "width": 1024, "depth": 6}}
PROMPT = "a large red circle left of a small blue square on white"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"machine": describe_machine(), "threads": args.threads, "runs": {}}
    bandwidth = found["bandwidth_gb_per_s"] = round(measured_bandwidth() / 1e9, 2)
    model = random_model()
    for dtype in (torch.float32,) if emulates_bf16("cpu") else (torch.float32, torch.bfloat16):
        model.to(dtype)
        for steps in (10, 4, 2):
            for batch in (1, 8):
                run = measured(model, steps, batch, bandwidth * 1e9)
                found["runs"][f"{str(dtype).removeprefix('torch.')}, {steps} steps, batch {batch}"] = run
                print(dtype, steps, batch, json.dumps(run))
    if args.results:
        args.results.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def random_model() -> SeqGenerator:
    words = CaptionTokenizer.train([PROMPT], None, 320)
    spec = LatentSpec(TOKENS, DIM, torch.zeros(TOKENS, DIM), torch.ones(TOKENS, DIM), "random")
    torch.manual_seed(0)
    return SeqGenerator(GeneratorConfig.parse(SIZE), spec, words).eval()


def measured(model: SeqGenerator, steps: int, batch: int, bandwidth: float) -> dict[str, float]:
    """Seconds an image, the limit of one reading by all of the batch, and how often the limit that is."""
    draw = lambda: model.sample([PROMPT] * batch, guidance=3.0, flow={"steps": steps})  # noqa: E731
    seconds = best_of_several(draw) / batch
    body, head = (sum(p.numel() * p.element_size() for p in part.parameters()) for part in (model.backbone, model.head))
    limit = TOKENS * (body + head * steps) / bandwidth / batch
    return {"seconds_per_image": round(seconds, 4), "limit": round(limit, 4), "times_limit": round(seconds / limit, 2)}


def measured_bandwidth() -> float:
    """Bytes a second that all threads read from memory."""
    buffer = torch.ones(2**28)  # 1 GiB
    return 4 * len(buffer) / best_of_several(buffer.sum)


def best_of_several(work: Callable[[], object], times: int = 4) -> float:
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


if __name__ == "__main__":
    main()
