"""The only file that speaks DeepSpeed: forward, backward, step, and the states that a checkpoint holds.

What is unusual: DeepSpeed's configuration is made here from TrainConfig (no second file exists); gradients
that are not finite skip the step at all stages, on all processes together; bf16 is torch's autocast over fp32
weights (DeepSpeed's own bf16 casts buffers too: position tables and latent statistics would lose their
digits), so that weights, gradients and averages are the same fp32 tensors at every stage.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqtok_core.foundation import faults, fingerprint
from seqtok_core.training import ema
from seqtok_core.training.config import TrainConfig
from seqtok_core.training.distributed import World, equal_start
from seqtok_core.training.layout import each_cut, rows_cut_evenly
from seqtok_core.training.optim import SplitOptimizer, parameter_groups
from seqtok_core.training.schedules import rate_factor

_BUCKET = 50_000_000  # values; DeepSpeed's default of 5e8 reserves 2 GB in fp32, whatever the model's size


class Engine:
    """An objective under DeepSpeed. All methods are called by all processes together."""

    def __init__(self, objective: nn.Module, config: TrainConfig, world: World) -> None:
        deepspeed = _import_deepspeed(world)
        self.config, self.world = config, world
        self._template = _without_weights(objective)
        excluded = set(getattr(objective, "muon_excluded", set)())
        groups = parameter_groups(objective.named_parameters(), excluded, config)
        self._names = [group["names"] for group in groups]
        self._shapes = [[p.shape for p in group["params"]] for group in groups]
        stage = config.zero_stage
        self.optimizer = SplitOptimizer(groups, config, guarded=stage == 0)
        numel = sum(p.numel() for p in objective.parameters())
        equal_start(objective.to(world.device), world)
        with _no_broadcast():
            self._engine, *_ = deepspeed.initialize(
                model=objective,
                optimizer=self.optimizer,
                config=_deepspeed_json(config, world, numel),
                dist_init_required=False,
            )
        if stage == 0 and world.size == 1:
            self._engine.enable_backward_allreduce = False  # it would copy every gradient twice to reduce nothing
        self._engine._copy_recovery_script = lambda path: None  # two scripts beside the checkpoints, never used
        self._describe_partitions(stage)
        self.ema_updates = 0
        shapes = {n: list(s) for g, k in zip(self._names, self._shapes, strict=True) for n, s in zip(g, k, strict=True)}
        self.fingerprint = fingerprint.of_value(shapes)[:16]  # of the trainable parameters' names and shapes

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
        self._engine.backward(loss * torch.where(finite, 1.0, float("nan")))

    def step(self, images_seen: int) -> bool:
        """Update the weights if this was the last micro-batch of the step.

        Returns False when a loss or gradient was not finite and the weights were left alone.
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
        return applied

    def close(self) -> None:
        """Free what DeepSpeed holds, so that a second training in this process has the memory."""
        self._engine.destroy()

    @property
    def gradient_norm(self) -> Tensor:
        """Global norm before clipping, of the last step."""
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
            weights |= layout.assemble(state[flat].get("average", flat.detach()))
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
        import deepspeed

        frozen = {n: p for n, p in self._engine.module.named_parameters() if not p.requires_grad}
        with deepspeed.zero.GatheredParameters(list(frozen.values())):
            return {name: p.detach().clone() for name, p in frozen.items()}

    def save(self, folder: Path, tag: str, client_state: dict[str, Any]) -> None:
        """Write this process's part to folder/tag; "latest" is not written (it would race).

        A write that fails is reported after DeepSpeed's barriers: raised inside, it would leave the others
        waiting.
        """
        problems: list[Exception] = []
        writer = self._engine.checkpoint_engine
        write = writer.save

        def attempt(state_dict: Any, path: str) -> None:
            try:
                write(state_dict, path)
            except (OSError, RuntimeError) as error:  # torch.save on a full disk: "unexpected pos"
                problems.append(error)

        writer.save = attempt
        try:
            state = {**client_state, "ema_updates": self.ema_updates}
            self._engine.save_checkpoint(str(folder), tag=tag, client_state=state, save_latest=False)
        finally:
            del writer.save
        if problems:
            raise problems[0]

    def load(self, folder: Path, tag: str) -> dict[str, Any]:
        """Read what save wrote; returns its client_state. The files must have been verified and vetted."""
        settings = [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups]
        _, state = self._engine.load_checkpoint(str(folder), tag=tag)
        for group, wanted in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(wanted)  # the config's word, not the file's
        self.ema_updates = state["ema_updates"]
        return state


def _deepspeed_json(config: TrainConfig, world: World, numel: int) -> dict[str, Any]:
    bucket = -(-min(_BUCKET, numel) // 1024) * 1024  # ZeRO wants an even number
    return {
        "train_batch_size": config.batch,
        "train_micro_batch_size_per_gpu": config.micro_batch_of(world.size),
        "gradient_accumulation_steps": config.accumulation(world.size),
        "gradient_clipping": config.clip if config.clip and config.zero_stage else 0.0,  # stage 0: SplitOptimizer
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "torch_autocast": {"enabled": config.precision == "bf16", "dtype": "bfloat16"},
        "timers": {"throughput": {"enabled": False}},
        "steps_per_print": None,
        "checkpoint": {"tag_validation": "Ignore"},
    }


def _import_deepspeed(world: World) -> Any:
    """Import quietly, and without the shared-memory operator that it would compile for a minute on CPU."""
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    warnings.filterwarnings("ignore", message=".*torch.distributed.*_tensor.*", category=FutureWarning)
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if world.device.type == "cpu":
        __compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    return deepspeed


@contextlib.contextmanager
def _no_broadcast() -> Iterator[None]:
    """DeepSpeed's broadcasts of the initial weights fail on parameters without dimensions (temperatures)."""
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.partition_parameters import Init

    def partition_only(init: Any, param: Any) -> None:
        init._convert_to_deepspeed_param(param)
        param.partition()

    originals = DeepSpeedEngine._broadcast_model, Init._zero_init_param
    DeepSpeedEngine._broadcast_model, Init._zero_init_param = (lambda engine: None), partition_only
    try:
        yield
    finally:
        DeepSpeedEngine._broadcast_model, Init._zero_init_param = originals


def _without_weights(objective: nn.Module) -> nn.Module:
    """A copy whose parameters have shapes but no memory."""
    empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in objective.parameters()}
    return copy.deepcopy(objective, empty)
