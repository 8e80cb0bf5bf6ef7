"""Memory of a training, per process: states by formula, activations counted while the objective runs.

States, after the ZeRO paper (Rajbhandari et al. 2020, arXiv:1910.02054, section 5), with this service's own bytes:
weights, gradients and states are fp32 (bf16 is autocast), AdamW keeps two values per weight, Muon one, the average
one. Activations depend on what autograd saves, which the published formula (Korthikanti et al. 2022,
arXiv:2205.05198, section 4: s b h (34 + 5 a s / h) bytes per layer) knows for one kind of Transformer only; here
every tensor that a real forward and backward pass holds is counted.

Letters: N weights, of which M are trained by Muon; W processes.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqtok_core.training.config import TrainConfig
from seqtok_core.training.costs.flops import lent

FP32 = 4  # bytes
BUCKET = 50_000_000  # values, at most; of the engine's reductions
LIVE = 1_000_000_000  # values that DeepSpeed's stage 3 gathers at most (stage3_max_live_parameters)


@dataclass(frozen=True)
class States:
    """Bytes on one device that do not depend on the batch. `transient` lives during the optimizer's step."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    buckets: int
    transient: int
    host: int = 0  # what offloading moves into main memory

    @property
    def resident(self) -> int:
        """What is there during the backward pass; its buckets are gone before the step."""
        return self.weights + self.gradients + self.optimizer + self.average + self.buckets


def states_of(groups: Sequence[dict[str, Any]], config: TrainConfig, stage: int, world: int, frozen: int = 0) -> States:
    """`groups` as optim.parameter_groups makes them, `frozen` weights that no group holds.

    Stage 0 keeps everything whole. Stages 1 and 2 cut the optimizer's states and keep, beside the weights, an
    fp32 copy of this process's part; stage 2 cuts gradients, which pass through two buckets; stage 3 cuts weights
    and gathers them for use (all of them, below a thousand million).
    """
    trained = sum(p.numel() for group in groups for p in group["params"])
    matrices = sum(p.numel() for group in groups if group["muon"] for p in group["params"])
    part = 1 if stage == 0 else world
    states = 2 * (trained - matrices) + matrices
    bucket = min(BUCKET, trained)
    weights = {
        0: trained + frozen,
        1: trained + frozen + trained / world,
        2: trained + frozen + trained / world,
        3: 2 * trained / world + frozen / world + min(trained, LIVE),
    }[stage]
    gradients = {0: trained, 1: trained, 2: trained / world, 3: trained / world}[stage]
    averaged = sum(p.numel() for group in groups if not group["owner"] for p in group["params"])
    optimizer, average = states / part, (averaged / part if config.ema_decay is not None else 0)
    transient = 3 * matrices / part  # the momentum's look ahead, the iteration, the update
    host = 0.0
    if config.offload != "none" and stage:  # the fp32 part and all that belongs to it; stage 3 may give the weights
        copies = trained / world * (2 if config.offload == "parameters" and stage == 3 else 1)
        host, weights = copies + optimizer + average, weights - copies
        optimizer = average = 0
    buckets = {0: 0 if world == 1 else bucket, 1: bucket, 2: 2 * bucket, 3: 2 * bucket}[stage]
    return States(
        weights=int(FP32 * weights),
        gradients=int(FP32 * gradients),
        optimizer=int(FP32 * optimizer),
        average=int(FP32 * average),
        buckets=FP32 * buckets,
        transient=int(FP32 * transient),
        host=int(FP32 * host),
    )


def largest_layer(module: nn.Module) -> int:
    """Weights of the module that holds most of its own."""
    return max((sum(p.numel() for p in m.parameters(recurse=False)) for m in module.modules()), default=0)


class Footprint(NamedTuple):
    """Of one forward and backward pass: most bytes held at once beside weights and gradients; operations called."""

    bytes: int
    operations: int


def footprint(objective: nn.Module, batch: Any) -> Footprint:
    """Run one micro-batch and follow its tensors; the objective is as before.

    Counted are all tensors, saved or passing, once per storage; not what kernels take for themselves.
    """
    with lent(objective) as borrowed, _Live() as live:
        for parameter in borrowed.stand_ins.values():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_let_go)
        borrowed(batch)["loss"].backward()
    return Footprint(live.peak, live.operations)


def _let_go(parameter: Tensor) -> None:
    """Gradients are counted with the states: gone as soon as they are whole."""
    parameter.grad = None


class _Live(TorchDispatchMode):
    """Follows the bytes of storages made inside it, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, weakref.ref] = {}
        self._now = self.peak = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        self.operations += 1
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in known:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def gone(_: Any) -> None:
            del self._alive[key]
            self._now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._now += size
        self.peak = max(self.peak, self._now)
