"""Which weights a loss reaches."""

from __future__ import annotations

from typing import Any

import torch

from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from tests.seq_tokenizer.toy import toy_batch, toy_tokenizer

WRITER = {"width": 16, "layers": 1, "heads": 2}


def objective_of(
    seed: int = 0, encoder: str = "titok", tokenizer: dict[str, Any] | None = None, **terms: Any
) -> TokenizerObjective:
    """With the terms that are named, and no other."""
    values = {"pixels": None, "contrast": None, **terms}
    parts = {"writer": WRITER} if "write" in terms else {}
    model = toy_tokenizer(encoder, seed=seed, **(parts | (tokenizer or {})))
    return TokenizerObjective(model, TokenizerTrainingConfig.parse(values))


def parts_reached(objective: TokenizerObjective) -> set[str]:
    """The parts of the tokenizer and the terms that get a gradient which is not zero."""
    objective.zero_grad()
    objective(toy_batch())["loss"].backward()
    names = [name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()]
    return {name.split(".")[1] for name in names}


def losses_of_training(objective: TokenizerObjective, steps: int = 30, lr: float = 3e-3) -> list[float]:
    """Of some steps of Adam on one batch."""
    optimizer, found = torch.optim.Adam(objective.parameters(), lr=lr), []
    for _ in range(steps):
        loss = objective(toy_batch(16))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
