"""What DeepSpeed itself says that a ZeRO stage needs, beside our own count."""

from __future__ import annotations

import os

import torch


def deepspeed_estimate(parameters: int, largest_layer: int, stage: int, world: int) -> int | None:
    """DeepSpeed's own number for the device, without offload; None where it has none (stages 0 and 1).

    It differs from ours: it assumes weights and gradients of 16 bits beside fp32 copies, Adam on all of them, no
    average, and at stage 2 all gradients in both precisions.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")  # else it says so aloud
    if stage == 2:
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as estimate2

        return int(estimate2(parameters, num_gpus_per_node=world, num_nodes=1, cpu_offload=False)[1])
    if stage == 3:
        from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as estimate3

        needs = estimate3(
            parameters, largest_layer, num_gpus_per_node=world, num_nodes=1, cpu_offload=False, cpu_offload_params=False
        )
        return int(needs[1])
    return None
