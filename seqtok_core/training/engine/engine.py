"""A model under DeepSpeed: forward, backward, step, and the states that a checkpoint holds.

What is unusual: gradients that are not finite skip the step at all stages, on all processes together; bf16 and
fp16 are torch's autocast over fp32 weights (DeepSpeed's own bf16 casts buffers too: position tables and latent
statistics would lose their digits), so that weights, gradients and averages are the same fp32 tensors at every
stage.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn

from seqtok_core.foundation import faults, fingerprint
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training.checkpoints import named_state
from seqtok_core.training.checkpoints.parts import Parts
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.engine import clipping, compiling, recompute
from seqtok_core.training.engine.deepspeed_setup import deepspeed_json, import_deepspeed, no_broadcast
from seqtok_core.training.engine.precision import LossScale, require_support
from seqtok_core.training.optimizer import ema
from seqtok_core.training.optimizer.layout import each_cut, rows_cut_evenly
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups
from seqtok_core.training.optimizer.schedules import rate_factor
from seqtok_core.training.processes.distributed import World, any_of, equal_start


class Engine:
    """An objective under DeepSpeed. All methods are called by all processes together."""

    def __init__(self, objective: nn.Module, config: TrainConfig, world: World) -> None:
        require_support(config.precision, world.device)
        deepspeed = import_deepspeed(world)
        self.config, self.world = config, world
        self._template = _without_weights(objective)
        if config.activation_checkpointing:
            recompute.recompute_blocks(objective)
        excluded = set(getattr(objective, "muon_excluded", set)())
        own_rates: dict[str, Any] = getattr(objective, "own_rates", dict)()
        if own_rates and config.zero_stage == 3:
            raise ConfigError(
                f"`zero_stage=3` does not work with {', '.join(own_rates)}, which has a rate of its own and is read "
                "with fixed weights too: use `zero_stage=2`"
            )
        groups = parameter_groups(objective.named_parameters(), excluded, config, own_rates)
        self._names = [group["names"] for group in groups]
        self._shapes = [[p.shape for p in group["params"]] for group in groups]
        stage = config.zero_stage
        self.optimizer = SplitOptimizer(groups, config, guarded=stage == 0)
        self.optimizer.compute_on = world.device
        numel = sum(p.numel() for p in objective.parameters())
        equal_start(objective.to(world.device), world)
        with no_broadcast():
            self._engine, *_ = deepspeed.initialize(
                model=objective,
                optimizer=self.optimizer,
                config=deepspeed_json(config, world, numel),
                dist_init_required=False,
            )
        if stage == 0 and world.size == 1:
            self._engine.enable_backward_allreduce = False  # it would copy every gradient twice to reduce nothing
        if own_rates and stage:
            clipping.clip_by_owner(self._engine.optimizer, groups)
        self._describe_partitions(stage)
        self.scale = LossScale(config.precision)
        self._not_finite = torch.zeros((), dtype=torch.bool, device=world.device)  # a loss of the current step
        self.overflowed = False
        self._take_over_scaling()
        if config.compile:
            compiling.compile_module(self._engine.module)
        self.ema_updates = 0
        pairs = zip(self._names, self._shapes, strict=True)
        self.shapes = {n: list(s) for names, sizes in pairs for n, s in zip(names, sizes, strict=True)}
        self.fingerprint = fingerprint.of_value(self.shapes)[:16]  # of the trainable parameters' names and shapes

    def _take_over_scaling(self) -> None:
        """One loss scale for all stages. DeepSpeed's own (a GradScaler each) keep none in checkpoints, and are
        made by mistake when an earlier engine of this process had fp16."""
        self._engine.torch_autocast_z0_gradscaler = None
        if self.config.zero_stage == 0:
            self.optimizer.loss_scale = self.scale.value
            return
        zero = self._engine.optimizer
        zero.torch_autocast_gradscaler = None
        if self.scale.active:
            zero.custom_loss_scaler, zero.external_loss_scale = True, self.scale.value

    def _describe_partitions(self, stage: int) -> None:
        zero, rank, size = self._engine.optimizer, self.world.rank, self.world.size
        if stage in (1, 2):
            flats = zero.single_partition_of_fp32_groups
            for flat, names, shapes in zip(flats, self._names, self._shapes, strict=True):
                self.optimizer.layouts[flat] = rows_cut_evenly(names, shapes, flat.numel(), rank, size)
        elif stage == 3:
            shape_of = {
                name: shape
                for names, shapes in zip(self._names, self._shapes, strict=True)
                for name, shape in zip(names, shapes, strict=True)
            }
            name_of = {id(p): name for name, p in self._engine.module.named_parameters()}
            for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
                names = [name_of[id(p)] for p in group]
                self.optimizer.layouts[flat] = each_cut(names, [shape_of[n] for n in names], rank, size)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The objective's values: "loss" with its graph, the rest detached."""
        values = self._engine(batch)
        if faults.hit("training.loss", self.world.rank) == "nan":
            values = {**values, "loss": values["loss"] * float("nan")}
        return {name: value if name == "loss" else value.detach() for name, value in values.items()}

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients; a loss that is not finite makes them NaN, which all processes will see.

        Without this an infinite loss behind a clamp would pass: its gradient is zero.
        """
        finite = torch.isfinite(loss.detach())
        if self.scale.active:
            self._not_finite |= ~finite
        factor = self.scale.value if self.config.zero_stage == 0 else 1.0  # ZeRO multiplies by itself
        self._engine.backward(loss * torch.where(finite, factor, float("nan")))

    def step(self, images_seen: int) -> bool:
        """Update the weights if this was the last micro-batch of the step.

        Returns False when a loss or gradient was not finite and the weights were left alone; `overflowed` then
        says whether the scale of fp16 was all that was wrong.
        """
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()
            return True
        self.optimizer.set_rates(rate_factor(self.config, images_seen))
        due = (self._engine.global_steps + 1) % self.config.ema_every == 0
        decay = None
        if due and self.config.ema_decay is not None:
            decay = ema.decay_at(self.ema_updates, self.config.ema_decay**self.config.ema_every)
        self.optimizer.average_decay = decay
        self._engine.step()
        applied = bool(self._engine.was_step_applied())
        self.ema_updates += int(applied and decay is not None)
        if self.scale.active:
            self._adapt_scale(applied)
        return applied

    def _adapt_scale(self, applied: bool) -> None:
        spoiled = not applied and any_of(self.world, bool(self._not_finite))
        self._not_finite.zero_()
        self.overflowed = not applied and not spoiled and self.scale.can_fall
        if not spoiled:
            self.scale.after(applied)
        self._take_over_scaling()

    def close(self) -> None:
        """Free what DeepSpeed holds, so that a second training in this process has the memory."""
        self._engine.destroy()

    @property
    def gradient_norm(self) -> Tensor:
        """Global norm before clipping, of the last step; of what has no rates of its own, where there is such."""
        norm = self._engine.get_global_grad_norm()
        return torch.as_tensor(float("nan") if norm is None else norm)

    def averaged_module(self) -> nn.Module | None:
        """A plain copy of the objective with the averaged weights (the weights, without EMA), on rank 0.

        It shares nothing with the training state and may be called by rank 0 alone, at every stage. Elsewhere
        None. Buffers are today's; other attributes are those of the start.
        """
        weights = self._averaged_weights()
        if not self.world.is_first:
            return None
        module = copy.deepcopy(self._template)
        module.load_state_dict(weights, strict=False, assign=True)
        buffers = dict(self._engine.module.named_buffers())
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
        return module.to(self.world.device).eval()

    def _averaged_weights(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        weights: dict[str, Tensor] = {}
        for flat, layout in self.optimizer.layouts.items():
            average = state[flat].get("average", flat.detach())
            weights |= layout.assemble(average.to(self.world.device))  # offloaded ones lie elsewhere
        for name, p in self._engine.module.named_parameters():
            if name not in weights and not hasattr(p, "ds_id"):
                weights[name] = state.get(p, {}).get("average", p.detach()).clone()
        if self.config.zero_stage == 3:
            weights |= self._frozen_weights()
        first = {id(p): name for name, p in self._engine.module.named_parameters()}
        tied = self._engine.module.named_parameters(remove_duplicate=False)
        return {name: weights[first[id(p)]] for name, p in tied if first[id(p)] in weights}

    def _frozen_weights(self) -> dict[str, Tensor]:
        """Stage 3 cuts frozen parameters as well, and no optimizer state speaks of them."""
        frozen = {n: p for n, p in self._engine.module.named_parameters() if not p.requires_grad}
        with self._gathered(frozen):
            return {name: p.detach().clone() for name, p in frozen.items()}

    def pieces(self) -> dict[str, Tensor]:
        """What this process writes into a checkpoint: views of the living state. Collective."""
        frozen = {n: p.detach() for n, p in self._engine.module.named_parameters() if not p.requires_grad}
        if self.config.zero_stage == 3:
            frozen = self._frozen_weights()
        return named_state.pieces_of(self.optimizer, self._engine.module, self.world, frozen)

    def state(self) -> dict[str, Any]:
        """What is no tensor: plain JSON values."""
        return {"ema_updates": self.ema_updates, "loss_scale": self.scale.state()}

    def restore(self, parts: Parts, state: dict[str, Any], step: int) -> None:
        """Take over the tensors and the state of a verified checkpoint, of any ZeRO stage and any number of
        processes. Collective."""
        stage, module, zero = self.config.zero_stage, self._engine.module, self._engine.optimizer
        kinds = named_state.kinds_by_name(self.optimizer.param_groups, self.optimizer.keeps_average)
        if stage == 3:
            zero.checkpoint_event_prologue()
        named_state.restore(self.optimizer, module, parts, kinds)
        frozen = {n: p for n, p in module.named_parameters() if not p.requires_grad}
        with self._gathered(frozen, write=True):
            for name, p in frozen.items():
                p.data.copy_(parts.whole("frozen", name, p))
        if stage in (1, 2):
            zero.update_lp_params()
        elif stage == 3:
            _refresh_partitions(zero)
            zero.checkpoint_event_epilogue()
        self._engine.global_steps, self._engine.skipped_steps = step, state["skipped"]
        self.ema_updates = state["ema_updates"]
        self.scale.restore(state["loss_scale"])
        self._take_over_scaling()

    def _gathered(
        self, parameters: dict[str, nn.Parameter], write: bool = False
    ) -> contextlib.AbstractContextManager[Any]:
        """Whole parameters inside. `write`: at stage 3 the values of rank 0 are cut again at the end."""
        if self.config.zero_stage != 3 or not parameters:
            return contextlib.nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=0 if write else None)


def _refresh_partitions(zero: Any) -> None:
    """ZeRO 3: the parameters' own partitions <- the fp32 ones (as DeepSpeed does after loading)."""
    rows = zip(
        zero.fp32_partitioned_groups_flat,
        zero.fp16_partitioned_groups_flat,
        zero.fp16_partitioned_groups,
        strict=True,
    )
    for fp32, flat, partitions in rows:
        flat.data.copy_(fp32.data)
        for partition, values in zip(partitions, zero.unflatten(flat, partitions), strict=True):
            partition.data = values.data


def _without_weights(objective: nn.Module) -> nn.Module:
    """A copy whose parameters have shapes but no memory."""
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in objective.parameters()}
    return copy.deepcopy(objective, empty)
