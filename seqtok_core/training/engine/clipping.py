"""Clipping at ZeRO 1 and 2 where a module has rates of its own: each owner's gradient by its own norm.

DeepSpeed has one norm for all groups, so that a discriminator's gradient would shorten the step of what it judges.
Its two functions of the norm are replaced on the one optimizer at hand; without such a module nothing is replaced.
[read in DeepSpeed 0.19.8, DeepSpeedZeroOptimizer.step: the norm is asked for once per step, then each group's
gradient lies in `single_partition_of_fp32_groups[i].grad` when it is unscaled and clipped]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def clip_by_owner(zero: Any, groups: Sequence[dict[str, Any]]) -> None:
    """`zero`: DeepSpeed's optimizer of stage 1 or 2. `groups`: from optim.parameter_groups, in its order."""
    from deepspeed.runtime.utils import combine_grad_norm_groups as combine

    owners, clips = [group["owner"] for group in groups], [group["clip"] for group in groups]
    norms: dict[str, Tensor] = {}  # of the step at hand, with the loss scale in them
    unscale_and_clip = zero.unscale_and_clip_grads

    def scaled_global_norm(norm_type: int = 2) -> Tensor:
        """Of the first owner (what has no rates of its own); infinite when anybody's is not finite."""
        of_groups = [_group_norm(zero, number) for number in range(len(owners))]
        for owner in dict.fromkeys(owners):
            norms[owner] = combine([n for n, o in zip(of_groups, owners, strict=True) if o == owner], norm_type)
        everyone = combine(of_groups, norm_type)
        return norms[owners[0]] if everyone.isfinite() else everyone

    def unscale_and_clip_grads(gradients: list[Tensor], total_norm: Tensor) -> None:
        flats = zero.single_partition_of_fp32_groups
        number = next(i for i, flat in enumerate(flats) if flat.grad is gradients[0])
        zero.clip_grad = clips[number] or 0.0
        unscale_and_clip(gradients, norms[owners[number]])

    zero.scaled_global_norm, zero.unscale_and_clip_grads = scaled_global_norm, unscale_and_clip_grads


def _group_norm(zero: Any, number: int) -> Tensor:
    if zero.cpu_offload:
        return zero.complete_grad_norm_calculation_for_cpu_offload(zero.params_in_partition[number])
    return zero.get_grad_norm_direct(zero.averaged_gradients[number], zero.params_in_partition[number])
