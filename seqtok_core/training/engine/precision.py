"""Arithmetic of a run: what a device can do, and the loss scale that fp16 needs.

fp16 has 5 bits of exponent: gradients of activations below 6e-8 vanish. So the loss is multiplied by a scale
before the backward pass and the gradients are divided by it before they are clipped and used (Micikevicius et
al. 2018, arXiv:1710.03740). The scale falls when a gradient overflows and the step is left out, and rises
after many good steps, with the constants of torch.amp.GradScaler.
"""

from __future__ import annotations

from typing import Any

import torch

from seqtok_core.foundation.errors import ConfigError

_INITIAL, _GROW_AFTER = 2.0**16, 2000  # steps
_HIGHEST, _LOWEST = 2.0**24, 1.0

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class LossScale:
    """Equal on all processes, since they leave out the same steps. Without fp16 it stays 1."""

    def __init__(self, precision: str, initial: float = _INITIAL, grow_after: int = _GROW_AFTER) -> None:
        self.active = precision == "fp16"
        self.value = initial if self.active else 1.0
        self._grow_after, self._good = grow_after, 0

    @property
    def can_fall(self) -> bool:
        """Below 1 a scale no longer helps: then the gradient itself is not finite."""
        return self.value > _LOWEST

    def after(self, applied: bool) -> None:
        """Halve after an overflow, double after `grow_after` good steps in a row."""
        if not applied:
            self.value, self._good = max(_LOWEST, self.value / 2), 0
            return
        self._good += 1
        if self._good >= self._grow_after:
            self.value, self._good = min(_HIGHEST, self.value * 2), 0

    def state(self) -> dict[str, Any]:
        return {"value": self.value, "good": self._good}

    def restore(self, state: dict[str, Any] | None) -> None:
        """`state` None: a checkpoint of another precision, or from before there was a scale."""
        if self.active and state is not None:
            self.value, self._good = float(state["value"]), int(state["good"])


def require_support(precision: str, device: torch.device) -> None:
    """Raises ConfigError where bf16 would be emulated: on GPUs before Ampere."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise ConfigError(f"`precision=bf16`: {name} has no bf16 arithmetic; set `precision` to fp16 or fp32")
