"""FLOPs of a training step, counted while it runs instead of derived from a formula.

The usual 6 x parameters x tokens (Kaplan et al. 2020, arXiv:2001.08361; Hoffmann et al. 2022, arXiv:2203.15556)
leaves out attention, and needs one number of tokens: here a tokenizer decodes each image twice and a head runs
several flow times per token. torch.utils.flop_counter sees every product as it happens. Counted are
matrix products (also those of einsum and attention), convolutions and their gradients, 2 FLOPs per
multiply-add; elementwise work, norms, softmax, lookups and the optimizer are not. That is the count that
MFU is defined on (PaLM, arXiv:2204.02311, appendix B).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def count_flops(objective: nn.Module, batch: Any) -> int:
    """FLOPs of forward + backward of one micro-batch, which lies on the objective's device.

    Runs the objective once. Gradients, buffers and torch's random state are as before. All processes must call
    it together where the objective communicates, and before DeepSpeed cuts the parameters (ZeRO 3). Work that
    activation checkpointing does twice is counted twice.
    """
    with lent(objective) as borrowed, new_counter() as counter:
        borrowed(batch)["loss"].backward()
    return int(counter.get_total_flops())


def new_counter() -> FlopCounterMode:
    """A context manager that counts the FLOPs of what runs inside."""
    return FlopCounterMode(display=False, custom_mapping=_unknown_to_torch())


class Borrowed:
    """An objective as a function whose forward and backward leave its gradients, hooks and buffers alone.

    Weights are shared; gradients fall on `stand_ins`, by name.
    """

    def __init__(self, objective: nn.Module) -> None:
        self._objective = objective
        self.stand_ins = {n: p.detach().requires_grad_(p.requires_grad) for n, p in objective.named_parameters()}
        self._buffers = {name: buffer.clone() for name, buffer in objective.named_buffers()}

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        return torch.func.functional_call(self._objective, (self.stand_ins, self._buffers), (batch,))


@contextmanager
def lent(objective: nn.Module) -> Iterator[Borrowed]:
    """Run `objective` without a trace; torch's random state (CPU and its device) is put back at the end."""
    devices = {p.device for p in objective.parameters() if p.device.type not in ("cpu", "meta")}
    kind = next((d.type for d in devices), "cuda")
    with torch.random.fork_rng(devices=[d.index or 0 for d in devices], device_type=kind):
        yield Borrowed(objective)


def _unknown_to_torch() -> dict[Any, Callable[..., int]]:
    """Fused attention on CPU: torch registers its formula for the GPU kernels only, so it would count as 0."""

    def forward(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(grad: Any, query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
