"""`seqtok plan`: what a training needs, before it is started: memory, time, money, disk.

Counted on the real objective: weights, FLOPs and activations (training/costs/). Derived:
states by ZeRO stage; time = FLOPs x images / (peak x MFU x devices), after PaLM's definition of MFU
(arXiv:2204.02311, appendix B). Measured, on this machine only: memory of the imports and seconds of a real step.
Assumed, and said in `assumptions`: MFU, price, what no data set tells.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import psutil
import torch

from seqtok.plan.request import PlanRequest
from seqtok.runs.base import TrainingRun, Workload
from seqtok.runs.kinds import load_training_run
from seqtok_core.foundation.errors import ConfigError, SeqtokError
from seqtok_core.layers import attention
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.costs.flops import count_flops
from seqtok_core.training.costs.hardware import GB, GPUS, Gpu, Peak, known_gpu, peak_flops, this_gpu
from seqtok_core.training.costs.memory import States, footprint, largest_layer, states_of
from seqtok_core.training.engine import recompute
from seqtok_core.training.engine.estimate import deepspeed_estimate
from seqtok_core.training.optimizer.optim import parameter_groups

# PaLM's table 3 (arXiv:2204.02311): GPT-3 0.21, Gopher 0.33, Megatron-Turing 0.30, PaLM 0.46, all far larger models.
GPU_MFU = 0.35
CPU_MFU = 0.20  # demo-tokenizer, bf16, 2 cores: 515 images/s x 383 MFLOP against 1.0 TFLOP/s measured
GPU_BASE = int(1.5 * GB)  # CUDA context, cuBLAS and cuDNN workspaces, NCCL's buffers; assumed
GPU_HOLES = 1.1  # what the caching allocator reserves beside what is used; assumed
# Resident over counted bytes on CPU: glibc's heap keeps holes, kernels take room of their own, in 16 bits for copies
# in blocked layouts too. Measured with benchmarks/training/plan_check.py and at batches of 16 to 256 of demo-tokenizer.
CPU_HOLES = {"fp32": 1.25, "bf16": 1.55, "fp16": 1.55}
LAUNCH = 1e-5  # seconds to start one operation on a GPU from Python, backward included; assumed
FILL = 0.92  # of a device's memory, that a plan uses up


def answer_plan(config: str, overrides: Sequence[str], request: PlanRequest) -> dict[str, Any]:
    """Everything as one JSON object; bytes, seconds, FLOPs, USD. Raises ConfigError or DataError."""
    run = load_training_run(config, overrides)
    device = _device(request)
    micro = run.train.micro_batch_of(request.gpus)
    if isinstance(run.train.threads, int) and device is None:
        torch.set_num_threads(run.train.threads)
    sizes = (max(1, micro // 2), max(2, micro)) if device is None else (2, 4)
    torch.manual_seed(run.train.seed)
    work = run.workload(request.assumed, sizes[1])
    counted = _count(work, run.train, sizes, on_gpu=device is not None)
    measure = device is None if request.measure is None else request.measure
    probe = _probe(config, overrides, run, request, micro, measure) if device is None or measure else None
    notes = [*work.notes]
    stages = [_memory(work, counted, run, stage, request.gpus, micro, device, probe) for stage in range(4)]
    chosen = stages[run.train.zero_stage]
    answer: dict[str, Any] = {
        "config": config,
        "kind": run.kind,
        "device": {"name": device.name if device else "cpu", "count": request.gpus, "memory": _capacity(device)},
        "batch": {"global": run.train.batch, "micro": micro, "accumulation": run.train.accumulation(request.gpus)},
        "parameters": _parameters(work, run),
        "memory": {"stages": stages, "chosen_stage": run.train.zero_stage, "total": chosen["total"]},
        "flops_per_image": counted["flops"],
        "time": _time(run, counted, request, device, probe, work, notes),
        "disk": _disk(work, run, chosen),
        "assumptions": notes,
        "warnings": [],
    }
    answer["disk"]["read_bytes_per_s"] = work.stored_bytes * answer["time"]["images_per_s"]
    if probe and "peak_bytes" in probe:
        answer["memory"]["measured_peak"] = probe["peak_bytes"]
        if device is None and request.gpus == 1:  # nearer than any formula of ours; what the probe lacks is added
            answer["memory"]["total"] = probe["peak_bytes"] + chosen["checkpoint_copy"] + chosen["loader"]
    answer["warnings"] = _warnings(answer, run, work)
    return answer


def _device(request: PlanRequest) -> Gpu | None:
    """None for a CPU. Raises ConfigError that lists the known names."""
    local = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR", "cuda") == "cuda"
    name = request.gpu or ("" if local else "cpu")
    gpu = this_gpu() if not name else None if name.lower() == "cpu" else known_gpu(name)
    if request.measure and (gpu is not None) != local:
        raise ConfigError(f"--measure: this machine has {'a GPU' if local else 'no GPU'}; plan {name} by formula")
    if gpu is None and name.lower() != "cpu":
        raise ConfigError(f"--gpu {name}: not known; choose cpu or one of {', '.join(g.name.lower() for g in GPUS)}")
    return gpu


def _count(work: Workload, train: TrainConfig, sizes: tuple[int, int], on_gpu: bool) -> dict[str, float]:
    """FLOPs per image, activation bytes as `fixed` + `per_image` x micro-batch: from two sizes, a line.

    Counted on the CPU, which for a GPU takes the fused attention of GPUs; both 16-bit formats have the same sizes.
    """
    recomputed = recompute.wrapped(work.objective) if train.activation_checkpointing else contextlib.nullcontext()
    token = attention.fused_on_cpu.set(on_gpu)
    with torch.autocast("cpu", torch.bfloat16, enabled=train.precision != "fp32"):
        with recomputed:
            small, large = (footprint(work.objective, work.batch(size)) for size in sizes)
        flops = count_flops(work.objective, work.batch(sizes[1])) / sizes[1]
    attention.fused_on_cpu.reset(token)
    slope = max(0.0, (large.bytes - small.bytes) / (sizes[1] - sizes[0]))
    fixed = max(0.0, large.bytes - slope * sizes[1])
    return {"flops": flops, "per_image": slope, "fixed": fixed, "operations": large.operations}


def _probe(
    config: str,
    overrides: Sequence[str],
    run: TrainingRun,
    request: PlanRequest,
    micro: int,
    measure: bool,
) -> dict[str, Any]:
    asked = {
        "config": config,
        "overrides": list(overrides),
        "assumed": asdict(request.assumed),
        "micro_batch": micro,
        "accumulation": run.train.accumulation(request.gpus),
        "steps": request.steps if measure else 0,
    }
    command = [sys.executable, "-m", "seqtok.plan.probe"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SeqtokError(
            f"plan: the steps to be measured ended with status {done.returncode} ({last}); try --no-measure"
        ) from None


def _parameters(work: Workload, run: TrainingRun) -> dict[str, Any]:
    groups = _groups(work, run)
    total = sum(p.numel() for p in work.objective.parameters())
    by_group = {group["title"]: sum(p.numel() for p in group["params"]) for group in groups}
    parts: dict[str, int] = {}
    for name, p in work.objective.named_parameters():
        part = name.split(".")[1] if name.count(".") > 1 else name
        parts[part] = parts.get(part, 0) + p.numel()
    return {"total": total, "groups": by_group, "parts": parts}


def _groups(work: Workload, run: TrainingRun) -> list[dict[str, Any]]:
    objective = work.objective
    excluded: Any = getattr(objective, "muon_excluded", set)()
    own_rates: Any = getattr(objective, "own_rates", dict)()
    return parameter_groups(objective.named_parameters(), excluded, run.train, own_rates)


def _memory(
    work: Workload,
    counted: dict[str, float],
    run: TrainingRun,
    stage: int,
    world: int,
    micro: int,
    device: Gpu | None,
    probe: dict[str, Any] | None,
) -> dict[str, Any]:
    """One process at one ZeRO stage. The peak lies in the backward pass, or in the optimizer's step."""
    states: States = states_of(_groups(work, run), run.train, stage, world)
    holes = CPU_HOLES[run.train.precision] if device is None else GPU_HOLES
    per_image, fixed = counted["per_image"] * holes, counted["fixed"] * holes
    loader = 0
    if device is None:
        loader = work.cache_bytes
    base = GPU_BASE if device is not None or probe is None else probe["base_bytes"]
    copy = 0  # of the state, while it is written in the background; it lies in main memory
    if device is None and run.train.background_save:
        copy = (states.weights + states.optimizer + states.average + states.host) // (world if stage == 0 else 1)
    outside = base + states.resident + loader + copy + (states.host if device is None else 0)
    room = _capacity(device) * FILL - outside - fixed
    parameters = sum(p.numel() for p in work.objective.parameters())
    return {
        "stage": stage,
        **asdict(states),
        "activations": int(fixed + per_image * micro),
        "loader": loader,
        "checkpoint_copy": copy,
        "base": base,
        "total": int(outside + max(fixed + per_image * micro, states.transient)),
        "deepspeed": deepspeed_estimate(parameters, largest_layer(work.objective), stage, world),
        "largest_micro_batch": max(0, int(room / per_image)) if per_image else None,
    }


def _capacity(device: Gpu | None) -> int:
    """Bytes of the device; of a CPU what this machine, or the container that we are in, has."""
    from seqtok_core.foundation.machine import memory_limit

    return device.memory if device is not None else min(psutil.virtual_memory().total, memory_limit() or sys.maxsize)


def _time(
    run: TrainingRun,
    counted: dict[str, float],
    request: PlanRequest,
    device: Gpu | None,
    probe: dict[str, Any] | None,
    work: Workload,
    notes: list[str],
) -> dict[str, Any]:
    """Seconds of the training loop: by formula always, from measured steps where there are some."""
    precision = run.train.precision
    peak: Peak = device.peak(precision) if device else peak_flops("cpu", precision)
    mfu = request.mfu or (GPU_MFU if device else CPU_MFU)
    images = run.train.steps * run.train.batch
    rate = peak.flops_per_s * mfu * request.gpus / counted["flops"]
    if device is not None:
        launch = counted["operations"] * LAUNCH * run.train.accumulation(request.gpus)
        if run.train.batch / rate < launch:
            notes.append(
                f"a step's {counted['operations']:.0f} operations take {LAUNCH * 1e6:.0f} us each to start: "
                "that bounds so small a step, not arithmetic (assumed; a larger micro-batch is free)"
            )
            rate = run.train.batch / launch
    formula = images / rate
    result: dict[str, Any] = {
        "peak_flops": peak.flops_per_s,
        "peak_source": peak.source,
        "mfu": mfu,
        "formula_seconds": formula,
    }
    notes.append(f"MFU of {mfu:.2f} {'given' if request.mfu else 'assumed'}; time of communication is in it")
    if probe and "step_seconds" in probe:
        micro = run.train.micro_batch_of(request.gpus)
        rate = micro * run.train.accumulation(request.gpus) * request.gpus / probe["step_seconds"]
        result["step_seconds"] = probe["step_seconds"]
        if device is None and request.gpus > 1:
            notes.append("measured with one process: several on one machine share its cores")
    seconds = images / rate
    price = request.price if request.price is not None else (device.price if device else 0.0)
    if price:
        notes.append(f"{price:.2f} USD per GPU hour {'given' if request.price is not None else 'assumed (--price)'}")
    reads = work.read_per_s
    return {
        **result,
        "seconds": seconds,
        "images_per_s": rate,
        "gpu_hours": seconds * request.gpus / 3600,
        "cost_usd": seconds * request.gpus / 3600 * price,
        "communication_bytes_per_step": _traffic(work, run, request.gpus),
        "read_images_per_s": reads and reads * max(1, work.loader.num_workers) * request.gpus,
    }


def _traffic(work: Workload, run: TrainingRun, world: int) -> int:
    """Bytes that a process sends in a step (ZeRO, section 7): 2 N values at stages 0-2, 3 N at stage 3."""
    if world == 1:
        return 0
    values = sum(p.numel() for group in _groups(work, run) for p in group["params"])
    return 4 * values * (3 if run.train.zero_stage == 3 else 2)


def _disk(work: Workload, run: TrainingRun, chosen: dict[str, Any]) -> dict[str, Any]:
    """Checkpoints hold weights, optimizer states and average; from stage 1 on an fp32 copy of the weights too."""
    groups = _groups(work, run)
    whole = states_of(groups, run.train, 0, 1)
    one = whole.weights * (2 if chosen["stage"] else 1) + whole.optimizer + whole.average
    every = run.train.save_every or run.train.images
    return {
        "checkpoint_bytes": one,
        "checkpoints": -(-run.train.images // every),
        "kept_bytes": one * (run.train.keep + 1),  # the next one is written before the oldest goes
        "data_bytes": work.stored_bytes * (work.samples or 0),
        "sample_bytes": work.stored_bytes,
    }


def _warnings(answer: dict[str, Any], run: TrainingRun, work: Workload) -> list[str]:
    found, memory = [], answer["memory"]
    chosen = memory["stages"][run.train.zero_stage]
    if memory["total"] > answer["device"]["memory"] * FILL:
        fits = [s["stage"] for s in memory["stages"] if s["total"] <= answer["device"]["memory"] * FILL]
        way = f"train.zero_stage={fits[0]} fits" if fits else "no stage fits; use more GPUs or a smaller model"
        if chosen["largest_micro_batch"]:
            way = f"train.micro_batch={chosen['largest_micro_batch']} fits" + (f", and {way}" if fits else "")
        found.append(f"does not fit: {memory['total'] / GB:.1f} GB of {answer['device']['memory'] / GB:.1f} GB; {way}")
    reads, rate = answer["time"]["read_images_per_s"], answer["time"]["images_per_s"]
    if reads and reads < 1.2 * rate and not work.cache_bytes:
        found.append(f"reading gives {reads:.0f} images/s, training takes {rate:.0f}: raise data.loader.num_workers")
    return found
