"""What a device can do: peak FLOP/s, memory, bandwidth; from data sheets for known GPUs, else measured.

Figures are dense (data sheets print twice as much, "with sparsity"), tensor cores for bf16, fp16 and tf32 with
fp32 accumulation, the plain units for fp32: torch multiplies fp32 matrices without tf32 unless it is told to.
Sources: NVIDIA data sheets and architecture white papers of V100, T4, A100, A10, Ada (L4, L40S, RTX 4090),
Ampere GA102 (RTX 3090), H100, H200, HGX B200; AMD's data sheet of the MI300X; Amazon's page of G5 for the A10G.
Prices are round figures of late 2025 for one GPU rented by the hour, an assumption and no quotation.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch

from seqtok_core.foundation.errors import ConfigError

GB, TERA = 10**9, 10**12


class Peak(NamedTuple):
    """`flops_per_s` of one device and where the number is from; unpacks as (float, str)."""

    flops_per_s: float
    source: str


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU. `matches`: words of torch.cuda.get_device_name(). TFLOP/s dense; None: not supported."""

    name: str
    matches: tuple[str, ...]
    bf16: float | None
    fp16: float
    tf32: float | None
    fp32: float
    memory: int  # bytes
    bandwidth: float  # bytes/s
    price: float  # USD per hour, assumed
    source: str = "data sheet of"

    def peak(self, precision: str) -> Peak:
        """Raises ConfigError when this GPU has no arithmetic of that precision."""
        figure = getattr(self, precision, None)
        if not isinstance(figure, float):
            raise ConfigError(f"{self.name} has no {precision} arithmetic; set `precision` to fp16 or fp32")
        return Peak(figure * TERA, f"{self.source} {self.name}, {precision} dense")


# The first entry whose words all stand in a device's name is taken: longer names come first.
GPUS: tuple[Gpu, ...] = (
    Gpu("B200", ("B200",), 2250.0, 2250.0, 1125.0, 75.0, 180 * GB, 8.0e12, 5.0),
    Gpu("H200", ("H200",), 989.4, 989.4, 494.7, 66.9, 141 * GB, 4.8e12, 3.5),
    Gpu("GH200", ("GH200",), 989.4, 989.4, 494.7, 66.9, 96 * GB, 4.0e12, 2.5),
    Gpu("H100-PCIe", ("H100", "PCIe"), 756.0, 756.0, 378.0, 51.2, 80 * GB, 2.0e12, 2.0),
    Gpu("H100-NVL", ("H100", "NVL"), 835.5, 835.5, 417.5, 60.0, 94 * GB, 3.9e12, 2.5),
    Gpu("H100", ("H100",), 989.4, 989.4, 494.7, 66.9, 80 * GB, 3.35e12, 2.5),
    Gpu("A100-40GB", ("A100", "40GB"), 312.0, 312.0, 156.0, 19.5, 40 * GB, 1.555e12, 1.2),
    Gpu("A100", ("A100",), 312.0, 312.0, 156.0, 19.5, 80 * GB, 2.039e12, 1.5),
    Gpu("L40S", ("L40S",), 362.1, 362.1, 183.2, 91.6, 48 * GB, 0.864e12, 1.0),
    Gpu("L4", ("L4",), 121.0, 121.0, 60.0, 30.3, 24 * GB, 0.3e12, 0.6),
    Gpu("A10G", ("A10G",), 70.0, 70.0, 35.0, 31.5, 24 * GB, 0.6e12, 0.75),
    Gpu("A10", ("A10",), 125.0, 125.0, 62.5, 31.2, 24 * GB, 0.6e12, 0.75),
    Gpu("V100-16GB", ("V100", "16GB"), None, 125.0, None, 15.7, 16 * GB, 0.9e12, 0.5),
    Gpu("V100", ("V100",), None, 125.0, None, 15.7, 32 * GB, 0.9e12, 0.6),
    Gpu("T4", ("T4",), None, 65.0, None, 8.1, 16 * GB, 0.32e12, 0.35),
    Gpu("RTX4090", ("4090",), 165.2, 165.2, 82.6, 82.6, 24 * GB, 1.008e12, 0.4),
    Gpu("RTX3090", ("3090",), 71.0, 71.0, 35.6, 35.6, 24 * GB, 0.936e12, 0.25),
    Gpu("MI300X", ("MI300X",), 1307.4, 1307.4, 653.7, 163.4, 192 * GB, 5.3e12, 2.5),
)


def known_gpu(name: str) -> Gpu | None:
    """By a short name ("h100", "a100-40gb") or the name that the driver gives ("NVIDIA H100 80GB HBM3")."""
    wanted = name.lower().replace(" ", "")
    for gpu in GPUS:
        if wanted == gpu.name.lower():
            return gpu
    words = name.lower().replace("-", " ").split()
    for gpu in GPUS:
        if all(word.lower() in words for word in gpu.matches):
            return gpu
    return None


def this_gpu() -> Gpu:
    """The GPU of this machine; one that the table does not know is measured."""
    about = torch.cuda.get_device_properties(0)
    known = known_gpu(about.name)
    if known is not None:
        return known
    bf16, fp16, fp32 = (measured_peak("cuda:0", p).flops_per_s / TERA for p in ("bf16", "fp16", "fp32"))
    return Gpu(about.name, (), bf16, fp16, None, fp32, about.total_memory, 0.0, 0.0, "measured on")


def peak_flops(device: torch.device | str, precision: str) -> Peak:
    """Peak of one device in "fp32", "tf32", "bf16" or "fp16": Peak(flops_per_s, source), a tuple.

    A GPU of the table: its data sheet. A CPU, or another GPU: the best of a few large matrix products (about a
    second, once per process and precision), which says so in `source`.
    """
    device = torch.device(device)
    if device.type == "cuda":
        gpu = known_gpu(torch.cuda.get_device_name(device))
        if gpu is not None:
            return gpu.peak(precision)
    return measured_peak(str(device), precision)


@functools.cache
def measured_peak(device: str, precision: str) -> Peak:
    """The fastest of square products of growing size, with the threads that torch has now."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    on_cpu = torch.device(device).type == "cpu"
    best, best_size = 0.0, 0
    for size in (512, 1024, 2048) if on_cpu else (2048, 4096, 8192):
        a = torch.ones(size, size, device=device, dtype=dtype)
        seconds = min(_seconds(a, device) for _ in range(4))
        if 2 * size**3 / seconds > best:
            best, best_size = 2 * size**3 / seconds, size
        if seconds > 0.25:
            break
    where = f"{torch.get_num_threads()} threads" if on_cpu else torch.cuda.get_device_name(torch.device(device))
    return Peak(best, f"measured, {best_size} x {best_size} {precision} product on {where}")


def emulates_bf16(device: torch.device | str) -> bool:
    """Whether bf16 products are slower than fp32 ones, as measured: CPUs without AVX-512 BF16 or AMX, older GPUs."""
    full, half = (measured_peak(str(device), precision).flops_per_s for precision in ("fp32", "bf16"))
    return half < 0.9 * full


def _seconds(a: torch.Tensor, device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    torch.mm(a, a)
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device | str) -> None:
    """Wait for the device, so that a clock means something; nothing to do on CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
