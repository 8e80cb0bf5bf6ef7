"""Findings about software and accelerators: versions, torch's build, operators, speed of products."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from typing import Any

from seqtok.doctor.finding import Finding, ok, problem, warning

_SHOWN = ("torch", "torchvision", "deepspeed", "open_clip_torch", "webdataset", "numpy", "sentencepiece", "pyarrow")
_EXTRAS = {"ray": "preparation on many machines", "wandb": "logging to Weights & Biases"}


def versions() -> list[Finding]:
    """Every package that seqtok requires, against the version it asks for."""
    from packaging.requirements import Requirement

    found, shown = [], []
    for text in metadata.requires("seqtok") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        have = _version(wanted.name)
        way = f"pip install '{wanted.name}{wanted.specifier}'"
        if have is None:
            found.append(problem("packages", f"{wanted.name} is missing", way))
        elif not wanted.specifier.contains(have, prereleases=True):
            found.append(problem("packages", f"{wanted.name} {have} does not fit {wanted.specifier}", way))
        elif wanted.name in _SHOWN:
            shown.append(f"{wanted.name} {have}")
    return [ok("packages", ", ".join([f"Python {platform.python_version()}", *shown])), *found]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def extras() -> list[Finding]:
    return [
        ok(name, _version(name) or "there")
        if importlib.util.find_spec(name)
        else ok(name, f"not installed; only for {use} (pip install 'seqtok[{name}]')")
        for name, use in _EXTRAS.items()
    ]


def driver() -> dict[str, str]:
    """Name -> driver version of NVIDIA GPUs, by nvidia-smi; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.splitlines()
    return {name.strip(): number.strip() for name, _, number in (line.partition(",") for line in lines) if number}


def accelerators() -> list[Finding]:
    import torch

    cards = driver()
    build = f"CUDA {_cuda()}" if _cuda() else "CPU"
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if cards and hidden is not None and not re.search(r"\d", hidden):
            return [warning("accelerator", f"CUDA_VISIBLE_DEVICES={hidden!r} hides the GPU", "unset it")]
        if cards and _cuda() is None:
            way = "install PyTorch's CUDA build (pytorch.org/get-started), or `make demo TORCH_INDEX=…`"
            return [problem("accelerator", f"{next(iter(cards))}, but torch is its {build} build", way)]
        if cards:
            text = f"driver {next(iter(cards.values()))} does not serve torch's {build}"
            return [problem("accelerator", text, "update the driver, or install a torch built for an older CUDA")]
        return [ok("accelerator", f"none; torch is its {build} build")]
    return [_card(torch, number, cards) for number in range(torch.cuda.device_count())]


def _cuda() -> str | None:
    """The CUDA version that torch was built for."""
    from torch.version import cuda

    return cuda


def _card(torch: Any, number: int, cards: dict[str, str]) -> Finding:
    about = torch.cuda.get_device_properties(number)
    text = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, capability {about.major}.{about.minor}"
    text += f", driver {next(iter(cards.values()))}" if cards else ""
    text += f", CUDA {_cuda()}"
    if torch.distributed.is_nccl_available():
        text += ", NCCL " + ".".join(map(str, torch.cuda.nccl.version()))
    subject = f"accelerator {number}"
    known = [arch for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    if known and f"sm_{about.major}{about.minor}" not in known and about.major > max(int(a[3:-1]) for a in known):
        return problem(subject, f"{text}: newer than this torch knows", "install a newer torch")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return warning(subject, f"{text}: no bf16", "set train.precision=fp16 (or fp32)")
    return ok(subject, text)


def image_operators() -> list[Finding]:
    """torchvision's compiled part; seqtok does without, see foundation/compat.py."""
    import torch

    from seqtok_core.foundation.compat import prepare_torchvision

    try:
        how = prepare_torchvision()
    except ModuleNotFoundError:
        return [problem("torchvision", "not installed", "pip install torchvision (the build that fits torch)")]
    if how == "native":
        return [ok("torchvision", "its operators load")]
    text = "its compiled operators do not load beside this torch; declared, which is all that seqtok needs"
    if torch.cuda.is_available():
        return [warning("torchvision", text, "install torch and torchvision from the same index")]
    return [ok("torchvision", text)]


def products() -> list[Finding]:
    """Speed of large matrix products; bf16 that is slower than fp32 is emulated."""
    import torch

    from seqtok_core.training.costs.hardware import emulates_bf16, measured_peak

    device = "cuda" if torch.cuda.is_available() else "cpu"
    full, half = (measured_peak(device, precision).flops_per_s for precision in ("fp32", "bf16"))
    text = f"{device}: fp32 {full / 1e12:.2f}, bf16 {half / 1e12:.2f} TFLOP/s measured"
    if device == "cpu":
        text += f" ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"
    if emulates_bf16(device):
        return [warning("products", f"{text}: bf16 is emulated", "set train.precision=fp32")]
    return [ok("products", text)]


CHECKS = (versions, extras, accelerators, image_operators, products)
