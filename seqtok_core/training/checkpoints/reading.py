"""Weights out of a checkpoint, without DeepSpeed, on any machine: what export needs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError, MismatchError
from seqtok_core.training.checkpoints import checkpoint
from seqtok_core.training.checkpoints.checkpoint import CHECKPOINTS
from seqtok_core.training.checkpoints.named_state import persistent_buffers
from seqtok_core.training.checkpoints.parts import Parts


def find_checkpoint(path: Path) -> Path:
    """A checkpoint, or the newest whole one of a run; verified. Raises DataError or MismatchError."""
    path, found = Path(path), all_of(path)
    if found == [path]:
        checkpoint.verify_checkpoint(path)
        return path
    for candidate in reversed(found):
        try:
            checkpoint.verify_checkpoint(candidate)
            return candidate
        except DataError as error:
            checkpoint.log.warning("%s; going back to the one before", error)
    raise DataError(f"{path}: holds no whole checkpoint ({len(found)} in all)")


def all_of(path: Path) -> list[Path]:
    """The checkpoints of a run folder or of its folder of checkpoints, or the one that `path` is itself.

    Raises DataError when there is no such folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    if (path / "manifest.json").is_file() or path in checkpoint.all_in(path.parent):
        return [path]
    return checkpoint.all_in(path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path)


@torch.no_grad()
def fill(module: nn.Module, path: Path, averaged: bool) -> None:
    """Give `module` the weights of a verified checkpoint: averaged (the weights, without EMA), or as trained.

    Raises MismatchError when names or shapes differ.
    """
    shapes = {name: list(p.shape) for name, p in module.named_parameters() if p.requires_grad}
    manifest = checkpoint.read_checkpoint_manifest(path)
    if fingerprint.of_value(shapes)[:16] != manifest["model"]:
        wrong = [name for name in shapes if shapes[name] != manifest["shapes"].get(name)]
        wrong += [name for name in manifest["shapes"] if name not in shapes]
        raise MismatchError(f"{path}: of a model with other weights ({', '.join(wrong[:3])} …)")
    parts = checkpoint.open_parts(path)
    for name, p in module.named_parameters():
        p.copy_(parts.whole(_kind(parts, name, p.requires_grad, averaged), name, p))
    for name, buffer in persistent_buffers(module).items():
        buffer.copy_(parts.whole("buffer", name, buffer))


def _kind(parts: Parts, name: str, trained: bool, averaged: bool) -> str:
    if not trained:
        return "frozen"
    return "average" if averaged and "average" in parts.kinds(name) else "weight"
