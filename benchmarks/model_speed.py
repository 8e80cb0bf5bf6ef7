"""Share of the matmul peak that a tokenizer of ViT-B's size reaches: encoding, decoding, training.

    python -m benchmarks.model_speed [--preset B] [--latents 64] [--batch 8] [--out benchmarks/results/model_speed.json]

Pictures of 256 px in patches of 16, so 256 patches beside the latents; weights and pictures in bf16 for encoding and
decoding, autocast to bf16 for the forward and backward pass of training (pixels alone, decoded from a prefix and from
all). The optimizer, AdamW and Muon, stands beside it: its work does not grow with the batch. FLOPs are those of the
products, counted while they run. The peak is that of the largest square bf16 product, measured before and after every
case: processors that share their clock with neighbours drift, so the median share is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import describe_command, describe_machine
from data_pipelines.samples import ImageTextBatch
from seq_tokenizer import SeqTokenizer, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seqtok_core.training import TrainConfig
from seqtok_core.training.costs.flops import count_flops, new_counter
from seqtok_core.training.costs.hardware import measured_peak, synchronise
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("S", "B", "L"), default="B")
    parser.add_argument("--latents", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--encoders", nargs="+", default=["qformer", "titok"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = {name: measure(args, name) for name in args.encoders}
    for name, cases in rows.items():
        for case, row in cases.items():
            print(
                f"{name:8} {case:17} {row['share']:6.1%} of {row['peak_tflops']:7.2f} TFLOP/s   "
                f"{row['images_per_second']:9.2f} images/s   {row['gflop']:8.1f} GFLOP an image"
            )
    if args.out:
        about = {"command": describe_command("model_speed"), "machine": describe_machine(), "batch": args.batch}
        args.out.write_text(json.dumps({**about, "encoders": rows}, indent=1) + "\n")


def measure(args: argparse.Namespace, encoder: str) -> dict[str, dict[str, float]]:
    """Case -> share of the peak, peak, images per second, GFLOP an image."""
    parts = {"preset": args.preset, "num_latents": args.latents, "encoder": {"kind": encoder}}
    torch.manual_seed(0)
    model = SeqTokenizer(TokenizerConfig.parse({"image_size": 256, "patch_size": 16, **parts})).to(args.device)
    batch = pictures(args.batch, args.device)
    pixels = batch.pixels()
    rows = {}
    for name, call, flops in training(model, batch):
        rows[name] = timed(call, flops, args)
    model.eval().requires_grad_(False).to(torch.bfloat16)
    with torch.no_grad():
        latents = model.encode(pixels)
        for name, call in (("encode", lambda: model.encode(pixels)), ("decode", lambda: model.decode(latents))):
            with new_counter() as counter:
                call()
            rows[name] = timed(call, int(counter.get_total_flops()), args)
    return rows


def training(model: SeqTokenizer, batch: ImageTextBatch) -> Iterator[tuple[str, Callable[[], Any], int]]:
    """What a step consists of, and the FLOPs of each."""
    objective = TokenizerObjective(model, TokenizerTrainingConfig()).train()
    config = TrainConfig(images=len(batch), batch=len(batch), precision="bf16")
    groups = parameter_groups(objective.named_parameters(), objective.muon_excluded(), config)
    optimizer = SplitOptimizer(groups, config, guarded=True)

    def passes() -> None:
        optimizer.zero_grad()
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = objective(batch)["loss"]
        loss.backward()

    yield "forward, backward", passes, count_flops(objective, batch)
    with new_counter() as counter:
        optimizer.step()
    yield "optimizer", optimizer.step, int(counter.get_total_flops())
    optimizer.zero_grad()


def timed(call: Callable[[], Any], flops: int, args: argparse.Namespace) -> dict[str, float]:
    for _ in range(2):
        call()
    synchronise(args.device)
    shares, seconds = [], []
    for _ in range(args.repeats):
        before = peak(args.device)
        began = time.perf_counter()
        call()
        synchronise(args.device)
        seconds.append(time.perf_counter() - began)
        shares.append(flops / seconds[-1] / max(before, peak(args.device)))
    taken = statistics.median(seconds)
    return {
        "share": round(statistics.median(shares), 4),
        "peak_tflops": round(flops / taken / statistics.median(shares) / 1e12, 3),
        "images_per_second": round(args.batch / taken, 2),
        "gflop": round(flops / args.batch / 1e9, 2),
    }


def peak(device: str) -> float:
    """FLOP/s of this moment; no answer of an earlier one."""
    return measured_peak.__wrapped__(device, "bf16").flops_per_s


def pictures(count: int, device: str) -> ImageTextBatch:
    """Noise, without captions."""
    images: Tensor = torch.randint(0, 256, (count, 3, 256, 256), dtype=torch.uint8)
    index = torch.arange(count)
    batch = ImageTextBatch(
        keys=[str(i) for i in range(count)],
        index=index,
        epoch=torch.zeros_like(index),
        text_ids=torch.zeros(count, 1, 1, dtype=torch.int64),
        level_mask=torch.zeros(count, 1, dtype=torch.bool),
        caption_ids=torch.full((count, 1), -1),
        images=images,
    )
    moved: ImageTextBatch = batch.to(torch.device(device))
    return moved


if __name__ == "__main__":
    main()
