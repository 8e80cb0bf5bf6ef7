"""Activation checkpointing: a block keeps its input alone and computes the rest again in the backward pass.

About a third more arithmetic for memory that no longer grows with what lies inside the blocks. Source: Chen et
al. 2016, arXiv:1604.06174; torch.utils.checkpoint without re-entrance, which restores autocast and torch's
random state, so that losses and gradients are the same bits.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from seqtok_core.foundation.errors import ConfigError


def blocks_of(objective: nn.Module) -> list[nn.Module]:
    """The blocks that the objective names. Raises ConfigError when it names none, ValueError when one has rates of
    its own."""
    blocks = list(getattr(objective, "checkpointed_blocks", list)())
    if not blocks:
        raise ConfigError(
            f"`activation_checkpointing`: {type(objective).__name__} has no blocks to recompute; set it to false"
        )
    for name in getattr(objective, "own_rates", dict)():
        if any(part in blocks for part in objective.get_submodule(name).modules()):
            raise ValueError(
                f"checkpointed_blocks() names blocks of {name}, which is read with detached weights too: the second "
                "computation would see others; leave them out"
            )
    return blocks


def recompute_blocks(objective: nn.Module, contexts: Any = None) -> None:
    """Replace the forward of every block. Around it everything (names, hooks, ZeRO's gathering) stays.

    `contexts`: context_fn of torch.utils.checkpoint, for who wants to know what is computed a second time.
    """
    further = {} if contexts is None else {"context_fn": contexts}
    for block in blocks_of(objective):
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, **further)  # type: ignore[method-assign]


class wrapped(AbstractContextManager):
    """wrap() for a while."""

    def __init__(self, objective: nn.Module, contexts: Any = None) -> None:
        self._objective = objective
        recompute_blocks(objective, contexts)

    def __exit__(self, *error: object) -> None:
        for block in blocks_of(self._objective):
            del block.forward  # what hid the class's own
