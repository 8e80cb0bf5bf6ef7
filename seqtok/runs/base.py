"""A kind of run that trains. Each is one file: its settings, what they build, what it shows and leaves, and what a
plan needs; checkpoints, plans and continuations ask nothing else of it. A new kind is a file and a line in kinds.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from data_pipelines.reading.loader import FetchConfig
from seq_tokenizer.text.gather import alone
from seqtok_core.foundation.config import LATER, RESUMABLE, Config, dotted
from seqtok_core.foundation.errors import MismatchError
from seqtok_core.training import Shown, TrainConfig

_AT_ONCE = 64  # held-out samples: what is contrasted with each other, whatever the training's batch
Count = Annotated[int, Field(ge=1)]


class RunLoader(Protocol):
    """Batches of this process, endless, from any step on; what they are; how many samples an epoch has."""

    @property
    def global_batch(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def samples(self) -> int: ...

    def iterate(self, start_step: int) -> Iterator[Any]: ...


class Hooks(Protocol):
    """What a run draws on its way and leaves at its end; called on rank 0 with averaged weights."""

    def on_sample(self, module: nn.Module, folder: Path, images: int) -> Shown | None: ...

    def on_finish(self, module: nn.Module, folder: Path) -> None: ...

    def on_validate(self, module: nn.Module) -> Mapping[str, float]: ...


class ValidationConfig(Config):
    """Held-out data that a training looks at on its way; of the least loss the model is kept in the run's `best`."""

    every: Count  # images between two looks; the end of the run is one
    split: str = "val"
    folder: Path | None = None  # of the split; null: where the training's data lie
    samples: Count = 1024  # at most


@dataclass(frozen=True)
class AssumedData:
    """What the user of a plan says of data that is not there."""

    vocab: int | None = None  # pieces of the captions model
    latents: tuple[int, int] | None = None  # K, D
    samples: int | None = None
    groups: tuple[int, ...] = ()  # of latents that are drawn together, as a LatentSpec has them


@dataclass
class Workload:
    """An objective, batches for it, and what is known of its data. Bytes are per sample."""

    objective: nn.Module
    batch: Callable[[int], Any]  # B -> batch of B samples
    samples: int | None
    kept_bytes: int  # in memory, where the loader keeps samples
    stored_bytes: int  # on the disk
    read_per_s: float | None  # samples that one process reads and decodes in a second; None: not measured
    loader: FetchConfig
    notes: list[str] = field(default_factory=list)

    @property
    def cache_bytes(self) -> int:
        """Of all samples, where the loader keeps them; 0 where it does not."""
        needed = (self.samples or 0) * self.kept_bytes
        return needed if self.loader.keeps(needed) else 0


class TrainingRun(Config):
    """Settings of a run. `kind` is the word in the config file; what is learned from is named under `data`."""

    kind: str
    out: Path
    train: TrainConfig
    # A model folder or hub id of the same kind, whose weights the run begins with; the rest (rates, momenta) is new.
    init_from: Annotated[str | None, LATER] = None
    validation: Annotated[ValidationConfig | None, LATER, RESUMABLE] = None

    @abstractmethod
    def build(self) -> tuple[nn.Module, RunLoader]:
        """The objective with fresh weights and this process's loader. Raises ConfigError, DataError or
        MismatchError."""

    @abstractmethod
    def hooks(self) -> Hooks: ...

    @abstractmethod
    def workload(self, assumed: AssumedData, rows: int) -> Workload:
        """For a plan, with or without the data set. `rows`: samples of the largest batch that will be asked for.
        Raises ConfigError or DataError."""

    @abstractmethod
    def parameters(self) -> tuple[int, str]:
        """Weights of the model, counted without room for them, and what had to be assumed ("" for nothing)."""

    def content(self, loader: RunLoader) -> dict[str, str]:
        """What must be the same for a run to be continued, beside its settings."""
        return {"data_fingerprint": loader.fingerprint}

    def describe_data(self, loader: RunLoader) -> str:
        """For the first lines of the log."""
        epochs = self.train.images / max(loader.samples, 1)
        return f"{epochs:.1f} epochs of {loader.samples:,} samples"

    def import_parts(self) -> None:
        """Import what is only imported when a model of this run is made: a plan measures the memory of it."""


def batch_rows(batch: Any, index: Tensor) -> Any:
    """Those samples of a batch, index (n,) int64, without labels and texts."""
    taken: dict[str, Any] = {"keys": [batch.keys[i] for i in index.tolist()]}
    left: dict[str, Any] = {name: empty for name, empty in (("labels", {}), ("captions", [])) if hasattr(batch, name)}
    for item in fields(batch):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            taken[item.name] = value[index]
    return replace(batch, **taken, **left)


@torch.no_grad()
def held_out_means(objective: nn.Module, held_out: Any, device: torch.device) -> dict[str, float]:
    """Means over a batch of what an objective says of `_AT_ONCE` of its samples at a time; by this process alone."""
    sums: dict[str, float] = {}
    with alone():
        for index in torch.arange(len(held_out)).split(_AT_ONCE):
            values: Mapping[str, Tensor] = objective(batch_rows(held_out, index).to(device))
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(index)
    return {name: total / len(held_out) for name, total in sums.items()}


_COMPUTES = ("heads", "kind", "prediction")  # settings that change no shape, and what is computed


def begin_with(model: Any, other: Any, name: str) -> None:
    """Give `model` the weights of `other`, the one of the same class that `name` names. Raises MismatchError naming
    the settings that differ where names or shapes do, or what the same weights compute."""
    own, its = model.state_dict(), other.state_dict()
    wrong = [
        key for key in own.keys() | its.keys() if key not in own or key not in its or own[key].shape != its[key].shape
    ]
    here, there = (dotted(each.config.model_dump(mode="json")) for each in (model, other))
    differing = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    if not wrong:
        differing = [key for key in differing if key.rpartition(".")[2] in _COMPUTES]
    if not wrong and not differing:
        model.load_state_dict(its)
        return
    settings = "; ".join(
        f"model.{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here" for key in differing
    )
    if not wrong:
        raise MismatchError(f"init_from={name}: its weights fit, and compute something else: {settings}")
    raise MismatchError(
        f"init_from={name}: {len(wrong)} of its tensors do not fit ({sorted(wrong)[0]}, …); "
        + (settings or "the words or the latents are others")
    )
