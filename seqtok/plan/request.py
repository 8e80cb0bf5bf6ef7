"""What is asked of a plan: the options of the command."""

from __future__ import annotations

from dataclasses import dataclass, field

from seqtok.runs.base import AssumedData


@dataclass(frozen=True)
class PlanRequest:
    """Devices, prices and what is assumed or measured."""

    gpus: int = 1
    gpu: str | None = None  # a name of training/costs/hardware.py, "cpu", or None for what this machine has
    price: float | None = None
    mfu: float | None = None
    measure: bool | None = None  # None: on the machine's own device
    steps: int = 20  # to be measured
    assumed: AssumedData = field(default_factory=AssumedData)
