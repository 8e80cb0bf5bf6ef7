"""Images per second of one tokenizer training step (forward, backward, optimizer), by precision and attention.

    python -m benchmarks.training.step [--batch 64] [--out benchmarks/results/training_step.json]

Sizes: width 128, 3 + 3 layers, 16 latents, so 32 tokens with patches of 8 and 80 with patches of 4. The median of
`--repeats` steps after a warm-up. Every case decodes each image twice, as the demo does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F

from benchmarks.machine import describe_machine
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.samples import ImageTextBatch
from data_pipelines.scenes import make_scene, render
from seq_tokenizer import SeqTokenizer, TokenizerObjective
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.layers import attention
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    batch = scenes_batch(args.batch)
    rows = []
    for patch in (8, 4):
        for name, precision, text, fused in (
            ("fp32, no text", "fp32", False, True),
            ("bf16, torch's fused attention, no text", "bf16", False, True),
            ("bf16, no text", "bf16", False, False),
            ("fp32, text", "fp32", True, True),
            ("bf16, torch's fused attention, text", "bf16", True, True),
            ("bf16, text (the demo)", "bf16", True, False),
        ):
            step = build_step(batch, patch, precision, text, fused)
            seconds = median_seconds(step, args.repeats)
            rows.append({"patch": patch, "case": name, "images_per_second": round(args.batch / seconds, 1)})
            print(f"patch {patch}  {name:42} {args.batch / seconds:8.1f} images/s", flush=True)
    if args.out:
        args.out.write_text(
            json.dumps({"machine": describe_machine(), "batch": args.batch, "rows": rows}, indent=1) + "\n"
        )


def build_step(batch: ImageTextBatch, patch: int, precision: str, text: bool, fused: bool) -> Callable[[], None]:
    """One whole optimizer step; `fused` takes torch's attention kernel in bf16 too."""
    words = [f"model.patch_size={patch}", f"train.precision={precision}"]
    words += [] if text else ["model.text=null", "model.writer=null", "objective.write=null"]
    run = load_kind(TokenizerRun, "demo-tokenizer", words)
    model = run.model
    if model.text is not None:
        model = model.model_copy(update={"text": model.text.model_copy(update={"vocab_size": 512})})
    torch.manual_seed(0)
    objective = TokenizerObjective(SeqTokenizer(model), run.objective)
    groups = parameter_groups(objective.named_parameters(), objective.muon_excluded(), run.train)
    optimizer = SplitOptimizer(groups, run.train, guarded=True)
    kernel = mock.patch.object(attention, "attend", _fused) if fused else mock.patch.object(attention, "_SHORT", 256)

    def step() -> None:
        optimizer.zero_grad()
        with kernel, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = objective(batch)
        losses["loss"].backward()
        optimizer.step()

    return step


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def median_seconds(step: Callable[[], None], repeats: int) -> float:
    for _ in range(3):
        step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def scenes_batch(count: int) -> ImageTextBatch:
    """Drawn scenes with captions, as the demo's loader gives them."""
    scenes = [make_scene(0, index) for index in range(count)]
    images = torch.stack([torch.from_numpy(render(scene, 32)).permute(2, 0, 1) for scene in scenes])
    words = CaptionTokenizer.train((c for scene in scenes for c in scene.captions), None, 512)
    text_ids, level_mask, caption_ids = words.encode_batch([scene.captions for scene in scenes], 4, 47)
    index = torch.arange(count)
    batch = ImageTextBatch(
        keys=[str(i) for i in range(count)],
        index=index,
        epoch=torch.zeros_like(index),
        text_ids=text_ids,
        level_mask=level_mask,
        caption_ids=caption_ids,
        images=images.contiguous(),
    )
    return replace(batch, labels={})


if __name__ == "__main__":
    main()
