"""Settings of one training run. Progress is counted in images (or sequences) seen, never in epochs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from seqtok_core.foundation.config import RESUMABLE, Config
from seqtok_core.foundation.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


_PARTS, _LEAST_STEPS = 20, 100  # of a run between two checkpoints, where nobody says how often


class WandbConfig(Config):
    """Weights & Biases beside TensorBoard. Curves stay on this machine with mode offline (`wandb sync` sends them)."""

    project: str
    name: str | None = None  # of the run; null: the run folder's name
    entity: str | None = None  # null: the account's default
    mode: Literal["online", "offline"] = "offline"


class TrainConfig(Config):
    """How long, how fast, how precisely; what is kept. Learning rates are those after warm-up."""

    images: Annotated[Count, RESUMABLE]  # or sequences seen in total, up to whole steps; may grow when a run goes on
    batch: Count  # global batch: over all processes and accumulation steps
    micro_batch: Annotated[Count | None, RESUMABLE] = None  # per process and backward pass; null: batch / processes
    lr: Annotated[float, Field(gt=0)] = 1e-3  # AdamW's part
    muon_lr: Annotated[float, Field(gt=0)] | None = 0.02  # matrices; null: AdamW for them too
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # decoupled: each step removes lr * weight_decay
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)  # AdamW's part; Muon's momentum is 0.95
    warmup_images: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"  # wsd: warm-up, stable, decay
    decay_fraction: Fraction = 0.2  # wsd only: the last part of the run, in which the rate falls
    final_lr_fraction: Fraction = 0.05  # of the rate, at the end of cosine and wsd
    clip: Annotated[float, Field(gt=0)] | None = 1.0  # global gradient norm; null: none
    zero_stage: Annotated[Literal[0, 1, 2, 3], RESUMABLE] = 0
    offload: Annotated[Literal["none", "optimizer", "parameters"], RESUMABLE] = "none"  # to main memory
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"  # products by autocast; weights, gradients, averages stay fp32
    activation_checkpointing: Annotated[bool, RESUMABLE] = False  # keep block inputs, compute the rest again: same bits
    compile: Annotated[bool, RESUMABLE] = False  # torch.compile of the objective; not with zero_stage 3
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = 0.999  # per step, warmed up; null: no average
    ema_every: Count = 1  # steps between two updates of the average (decay ** ema_every each)
    # images; auto: a twentieth of the run, but 100 steps at least; null: only at the end
    checkpoint_every: Annotated[Count | Literal["auto"] | None, RESUMABLE] = "auto"
    keep: Annotated[Count, RESUMABLE] = 2  # newest checkpoints that stay
    keep_every: Annotated[Count | None, RESUMABLE] = None  # images; a checkpoint at each multiple, which stays for ever
    background_save: Annotated[bool | None, RESUMABLE] = None  # write a copy while training goes on; null: on a GPU
    sample_every: Annotated[Count | None, RESUMABLE] = None  # images; null: never
    log_every: Count = 20  # steps; a line holds the means since the line before
    max_skipped: Count = 10  # steps in a row with a NaN or infinite loss or gradient before the run stops
    timeout_minutes: Annotated[float, Field(gt=0), RESUMABLE] = 30.0  # without progress or the others: the run stops
    wandb: Annotated[WandbConfig | None, RESUMABLE] = None
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[Count | Literal["auto"] | None, RESUMABLE] = "auto"  # on CPU; auto: the cores that are free

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup_images >= self.images:
            raise ValueError(f"warmup_images={self.warmup_images} must be below images={self.images}")
        if self.micro_batch is not None and self.batch % self.micro_batch:
            raise ValueError(f"micro_batch={self.micro_batch} does not divide batch={self.batch}")
        if self.offload != "none" and self.zero_stage == 0:
            raise ValueError(
                f"offload={self.offload} needs zero_stage 1, 2 or 3; zero_stage=0 keeps everything in place"
            )
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError(f"offload=parameters needs zero_stage=3 (got {self.zero_stage}); or use offload=optimizer")
        if self.compile and self.zero_stage == 3:
            raise ValueError("compile=true does not work with zero_stage=3, which cuts parameters; use zero_stage=2")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.images // self.batch)

    @property
    def save_every(self) -> int | None:
        """Images between two checkpoints; None: only at the end."""
        if self.checkpoint_every != "auto":
            return self.checkpoint_every
        return max(self.images // _PARTS, _LEAST_STEPS * self.batch)

    def micro_batch_of(self, world: int) -> int:
        """Samples per process and backward pass. ConfigError when `world` processes cannot share it."""
        micro = self.micro_batch or self.batch // world
        if micro == 0 or self.batch % (micro * world):
            raise ConfigError(
                f"batch={self.batch} cannot be split over {world} processes"
                + (f" in micro-batches of {self.micro_batch}" if self.micro_batch else "")
                + "; choose a batch that is a multiple of processes x micro_batch"
            )
        return micro

    def accumulation(self, world: int) -> int:
        """Backward passes per optimizer step."""
        return self.batch // (self.micro_batch_of(world) * world)
