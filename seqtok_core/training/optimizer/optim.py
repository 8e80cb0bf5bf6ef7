"""One optimizer for every ZeRO stage: Muon on matrices, AdamW on the rest, the weights' average beside them.

ZeRO 1-3 hand an optimizer flat partitions, on which torch.optim.Muon cannot run. DeepSpeed 0.19.8's own Muon
can, but at stages 1-3 it clips the norm of the *orthogonalised* gradient (with clip 1 a toy's nine matrices
moved 18 times less than at stage 0), and it compiles for two minutes at its first step on CPU. Here the
momentum is cut like every other optimizer state, whole matrices come together for the iteration only
(layout.py), and all stages make the same update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from seqtok_core.training.config import TrainConfig
from seqtok_core.training.optimizer import ema
from seqtok_core.training.optimizer.layout import Layout
from seqtok_core.training.optimizer.orthogonal import orthogonalise

MOMENTUM = 0.95
OWN_RATES = {"lr", "betas", "weight_decay", "clip"}  # what a module may have of its own


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    muon_excluded: set[str],
    config: TrainConfig,
    own_rates: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Split the trainable parameters: matrices (Muon), other weights (AdamW), gains and biases (no decay).

    `own_rates`: name of a module -> {"lr", "betas", "weight_decay", "clip"}, of which all but the first may be left
    out: all its parameters form a group of their own under AdamW (a discriminator beside what it judges), clipped by
    its own norm and never averaged. Each group says its "owner": that module, or "" for all the rest.
    Raises ValueError when a name is that of no parameter or module, or the rates of a module are others.
    """
    named = [(name, p) for name, p in named if p.requires_grad]
    unknown = muon_excluded - {name for name, _ in named}
    if unknown:
        raise ValueError(f"muon_excluded() names unknown parameters: {', '.join(sorted(unknown))}")
    own_groups = []
    for module, rates in (own_rates or {}).items():
        members = [(name, p) for name, p in named if name.startswith(f"{module}.")]
        _require_meaning(module, members, rates)
        decay, betas = rates.get("weight_decay", 0.0), tuple(rates.get("betas", config.betas))
        group = _group(module, members, False, rates["lr"], decay)
        own_groups.append(group | {"betas": betas, "owner": module, "clip": rates.get("clip", config.clip)})
        named = [(name, p) for name, p in named if not name.startswith(f"{module}.")]

    def is_matrix(name: str, p: nn.Parameter) -> bool:
        return config.muon_lr is not None and p.ndim == 2 and name not in muon_excluded

    rules = [
        ("matrices", True, config.muon_lr, config.weight_decay, is_matrix),
        ("weights", False, config.lr, config.weight_decay, lambda n, p: p.ndim >= 2 and not is_matrix(n, p)),
        ("gains", False, config.lr, 0.0, lambda n, p: p.ndim < 2),
    ]
    groups = []
    for title, muon, rate, decay, belongs in rules:
        members = [(name, p) for name, p in named if belongs(name, p)]
        if members:
            groups.append(_group(title, members, muon, rate, decay) | {"owner": "", "clip": config.clip})
    return groups + own_groups


def _require_meaning(module: str, members: list[tuple[str, nn.Parameter]], rates: Mapping[str, Any]) -> None:
    unknown = rates.keys() - OWN_RATES
    if not members:
        raise ValueError(f"own_rates() names {module}, which has no parameter to train (left, or at all)")
    if unknown or "lr" not in rates:
        wrong = f"{', '.join(sorted(unknown))} is no rate" if unknown else "lr is missing"
        raise ValueError(f"own_rates() of {module}: {wrong}; give lr and, where they differ, betas, weight_decay, clip")


def _group(
    title: str, members: list[tuple[str, nn.Parameter]], muon: bool, rate: float | None, decay: float
) -> dict[str, Any]:
    names, parameters = [name for name, _ in members], [p for _, p in members]
    rates = {"base_lr": rate, "lr": rate, "weight_decay": decay}
    return {"params": parameters, "title": title, "names": names, "muon": muon, **rates}


class SplitOptimizer(torch.optim.Optimizer):
    """Muon and AdamW side by side. `groups` from parameter_groups.

    `guarded`: clip the gradient here, each owner's by its own norm, and skip the step when one is not finite. That
    is for stage 0, where DeepSpeed would let a NaN into the weights; `overflow` and `_global_grad_norm` tell it, as
    ZeRO's do.
    `average_decay` is set before each step: None leaves the average as it is.
    """

    def __init__(self, groups: list[dict[str, Any]], config: TrainConfig, *, guarded: bool) -> None:
        super().__init__(groups, {"betas": config.betas, "fused": True})  # "fused": how states are loaded
        self.average_decay: float | None = None
        self.keeps_average = config.ema_decay is not None
        self.guarded = guarded
        self._iterate_in = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.loss_scale = 1.0  # what the gradients are to be divided by; ZeRO does it itself
        self.compute_on: torch.device | None = None  # where matrices are iterated; None: where they are
        self.overflow = False
        self._global_grad_norm: Tensor | None = None
        self.layouts: dict[Tensor, Layout] = {}  # of flat partitions; empty at stage 0

    def set_rates(self, factor: float) -> None:
        for group in self.param_groups:
            group["lr"] = group["base_lr"] * factor

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of the groups that hold parameters. ZeRO calls it once per group."""
        if self.guarded and not self._admit():
            return
        active = [group for group in self.param_groups if group["params"]]
        for group in active:
            if group["muon"]:
                self._muon(group)
            else:
                self._adamw(group)
        if self.keeps_average:
            self._average(active)

    def _admit(self) -> bool:
        """Measure and clip the gradients; False when one is not finite on any process (all see the same)."""
        owned: dict[str, tuple[float | None, list[Tensor]]] = {}
        for group in self.param_groups:
            _, gradients = owned.setdefault(group["owner"], (group["clip"], []))
            for p in group["params"]:
                if p.grad is None:
                    p.grad = torch.zeros_like(p)  # unused in this step; ZeRO sees zeros, so shall stage 0
                gradients.append(p.grad)
        norms = []
        for _, gradients in owned.values():
            if self.loss_scale != 1.0:
                torch._foreach_mul_(gradients, 1.0 / self.loss_scale)
            norms.append(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        self._global_grad_norm = norms[0]  # of all that has no rates of its own
        values = torch.stack(norms).tolist()  # the step's only wait for a GPU
        self.overflow = not all(math.isfinite(value) for value in values)
        if not self.overflow:
            for (clip, gradients), norm, value in zip(owned.values(), norms, values, strict=True):
                if clip is not None and value > clip:
                    torch._foreach_mul_(gradients, clip / (norm + 1e-6))
        return not self.overflow

    def _states(self, parameters: list[Tensor], key: str) -> list[Tensor]:
        for p in parameters:
            if key not in self.state[p]:
                shape = () if key == "step" else p.shape
                self.state[p][key] = torch.zeros(shape, dtype=torch.float32, device=p.device)
        return [self.state[p][key] for p in parameters]

    def _adamw(self, group: dict[str, Any]) -> None:
        parameters = group["params"]
        adamw(
            parameters,
            [p.grad for p in parameters],
            self._states(parameters, "exp_avg"),
            self._states(parameters, "exp_avg_sq"),
            [],
            self._states(parameters, "step"),
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )

    def _muon(self, group: dict[str, Any]) -> None:
        parameters = group["params"]
        gradients = [p.grad for p in parameters]
        momenta = self._states(parameters, "exp_avg")
        torch._foreach_lerp_(momenta, gradients, 1.0 - MOMENTUM)
        ahead = list(torch._foreach_lerp(gradients, momenta, MOMENTUM))  # Nesterov
        if self.layouts:
            updates = [self._flat_update(self.layouts[p], value) for p, value in zip(parameters, ahead, strict=True)]
        else:
            updates = orthogonalise(ahead, self._iterate_in)
        torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _flat_update(self, layout: Layout, ahead: Tensor) -> Tensor:
        here = ahead.to(self.compute_on)  # offloaded optimizer states lie in main memory
        update = torch.zeros_like(here)  # what pads the partition stays zero
        layout.scatter(orthogonalise(layout.collect(here), self._iterate_in), update)
        return update.to(ahead.device)

    def _average(self, groups: list[dict[str, Any]]) -> None:
        weights = [p for group in groups if not group["owner"] for p in group["params"]]
        for p in weights:
            if "average" not in self.state[p]:
                self.state[p]["average"] = p.detach().clone()
        if self.average_decay is not None:
            ema.update([self.state[p]["average"] for p in weights], weights, self.average_decay)
