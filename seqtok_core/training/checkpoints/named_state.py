"""What a training holds, as named pieces of tensors, whatever the ZeRO stage: out for saving, in for loading.

DeepSpeed's own files hold partitions that fit one stage and one number of processes; its universal form
knows only exp_avg and exp_avg_sq (we have `average` too), ends in an AssertionError between stages 1 and 3,
and at stage 3 gives every parameter group the settings of the first and one shared `step`, without a word
[read and measured in 0.19.8, load_hp_checkpoint_state_from_checkpoint_dir_stage3]. layout.py says where each
parameter lies, so names and ranges suffice: any stage and any number of processes reads any other's files, and
settings of groups come from the configuration alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqtok_core.foundation.errors import MismatchError
from seqtok_core.training.checkpoints.parts import Parts, piece_key
from seqtok_core.training.optimizer.layout import Layout
from seqtok_core.training.optimizer.optim import SplitOptimizer
from seqtok_core.training.processes.distributed import World


@dataclass(frozen=True)
class Span:
    """`numel` values of the parameter `name` from `start` on, at `offset` of a tensor that the optimizer steps."""

    name: str
    offset: int
    start: int
    numel: int


def held_here(optimizer: SplitOptimizer, module: nn.Module) -> list[tuple[Tensor, list[Span]]]:
    """Every tensor that this process's optimizer steps, and which parameters' values lie in it."""
    if optimizer.layouts:
        return [(flat, _spans(layout)) for flat, layout in optimizer.layouts.items()]
    return [(p, [Span(name, 0, 0, p.numel())]) for name, p in module.named_parameters() if p.requires_grad]


def _spans(layout: Layout) -> list[Span]:
    mine = [(e.name, p) for e in layout.entries for p in e.pieces if p.rank == layout.rank]
    return [Span(name, piece.offset, piece.start, piece.numel) for name, piece in mine]


def pieces_of(
    optimizer: SplitOptimizer, module: nn.Module, world: World, frozen: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What this process writes, as views (nothing is copied).

    Without partitions all processes hold the same, and each writes the parameters whose turn it is. `frozen`:
    whole parameters without a gradient; those and the buffers are written by rank 0.
    """
    pieces: dict[str, Tensor] = {}
    for number, (tensor, spans) in enumerate(held_here(optimizer, module)):
        if not optimizer.layouts and number % world.size != world.rank:
            continue
        state = {"weight": tensor.detach(), **optimizer.state.get(tensor, {})}
        for kind, values in state.items():
            for span in spans:
                if values.ndim == 0 and span.start == 0:  # a count (step), equal for all values
                    pieces[piece_key(kind, span.name)] = values
                elif values.ndim:
                    pieces[piece_key(kind, span.name, span.start)] = values.reshape(-1)[span.offset :][: span.numel]
    if world.is_first:
        pieces |= {piece_key("frozen", name): value for name, value in frozen.items()}
        pieces |= {piece_key("buffer", name): value for name, value in persistent_buffers(module).items()}
    return pieces


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to a model's saved state."""
    names = dict(module.named_buffers())
    return {name: value for name, value in module.state_dict(keep_vars=True).items() if name in names}


def restore(optimizer: SplitOptimizer, module: nn.Module, parts: Parts, kinds_of: Mapping[str, set[str]]) -> None:
    """Fill weights and optimizer states in place. `kinds_of`: the states that each parameter's optimizer keeps.

    A state that the files lack although they have others of that parameter is a MismatchError: it was trained
    by another optimizer. The average alone may be missing; it then begins with the weights.
    """
    for tensor, spans in held_here(optimizer, module):
        weights = tensor.detach()
        flat = weights.view(-1) if weights.is_contiguous() else weights.reshape(-1).clone()
        for span in spans:
            parts.read_into(flat[span.offset :][: span.numel], "weight", span.name, span.start)
        weights.copy_(flat.view_as(weights))
        optimizer.state[tensor] = _states(tensor, spans, parts, kinds_of)
    buffers = persistent_buffers(module)
    for name, buffer in buffers.items():
        buffer.copy_(parts.whole("buffer", name, buffer))


def _states(tensor: Tensor, spans: Sequence[Span], parts: Parts, kinds_of: Mapping[str, set[str]]) -> dict[str, Tensor]:
    known = {kind for span in spans for kind in _usable(span.name, parts, kinds_of[span.name])}
    state: dict[str, Tensor] = {}
    for kind in sorted(known):
        if kind == "step":
            count = torch.zeros(1)
            parts.read_into(count, kind, spans[0].name)
            state[kind] = count.view(()).to(tensor.device)  # its own: AdamW counts in place
            continue
        values = torch.zeros(tensor.numel(), dtype=torch.float32, device=tensor.device)
        for span in spans:
            parts.read_into(values[span.offset :][: span.numel], kind, span.name, span.start)
        state[kind] = values.view(tensor.shape)
    return state


def _usable(name: str, parts: Parts, wanted: set[str]) -> set[str]:
    found = parts.kinds(name) - {"weight", "average"}
    needed = wanted - {"average"}
    if found and found != needed:
        raise MismatchError(
            f"checkpoint: {name} was trained with {', '.join(sorted(found))}, this run needs "
            f"{', '.join(sorted(needed))}; set `muon_lr` to null or to a rate as it was there, or export the "
            "weights and begin with them"
        )
    return found | (wanted & parts.kinds(name) & {"average"})


def kinds_by_name(groups: Iterable[Mapping[str, Any]], keeps_average: bool) -> dict[str, set[str]]:
    """Parameter name -> the states that SplitOptimizer keeps of it."""
    kinds = {True: {"exp_avg"}, False: {"exp_avg", "exp_avg_sq", "step"}}
    return {
        name: kinds[bool(group["muon"])] | ({"average"} if keeps_average and not group["owner"] else set())
        for group in groups
        for name in group["names"]
    }
