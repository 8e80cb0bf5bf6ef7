"""DeepSpeed as we use it: its configuration made from TrainConfig (no second file exists), its import without
surprises, and the two places where it has to be held back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from seqtok_core.training.config import TrainConfig
from seqtok_core.training.processes.distributed import World

_BUCKET = 50_000_000  # values; DeepSpeed's default of 5e8 reserves 2 GB in fp32, whatever the model's size


def deepspeed_json(config: TrainConfig, world: World, numel: int) -> dict[str, Any]:
    """`numel`: parameters of the model, which bound the buffers."""
    bucket = -(-min(_BUCKET, numel) // 1024) * 1024  # ZeRO wants an even number
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    memory = {"device": "cpu", "pin_memory": world.device.type == "cuda"}
    if config.offload != "none":
        zero["offload_optimizer"] = memory
    if config.offload == "parameters":
        zero["offload_param"] = memory
    return {
        "train_batch_size": config.batch,
        "train_micro_batch_size_per_gpu": config.micro_batch_of(world.size),
        "gradient_accumulation_steps": config.accumulation(world.size),
        "gradient_clipping": config.clip if config.clip and config.zero_stage else 0.0,  # stage 0: SplitOptimizer
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # its CPU Adam would be compiled, and is no Muon
        "zero_optimization": zero,
        "torch_autocast": {
            "enabled": config.precision != "fp32",
            "dtype": "float16" if config.precision == "fp16" else "bfloat16",
        },
        "timers": {"throughput": {"enabled": False}},
        "steps_per_print": None,
        "checkpoint": {"tag_validation": "Ignore"},
    }


def import_deepspeed(world: World) -> Any:
    """Import quietly, and without the shared-memory operator that it would compile for a minute on CPU."""
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    warnings.filterwarnings("ignore", message=".*torch.distributed.*_tensor.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message="torch.distributed.nn.functional", category=FutureWarning)
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if world.device.type == "cpu":
        __compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    return deepspeed


@contextlib.contextmanager
def no_broadcast() -> Iterator[None]:
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
