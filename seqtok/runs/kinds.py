"""The kinds of run by name, and config files read as one of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from seqtok.evaluation.generation_runner import GenerationConfig
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.runs.base import TrainingRun
from seqtok.runs.generator import GeneratorRun
from seqtok.runs.settings import Count, read_values
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError


class DemoConfig(Config):
    """Sizes of the demo. The two training configs are named, their folders are set by the demo."""

    kind: Literal["demo"]
    train: Count = 40_000  # scenes
    test: Count = 2_000  # scenes, every second one a combination that training never holds
    prompts: Count = 200  # of the test scenes
    image_size: Count = 32  # pixels
    vocabulary: Count = 512
    processes: Count = 2
    seed: int = 0
    tokenizer: str = "demo-tokenizer"
    generator: str = "demo-generator"
    reader: ReaderConfig = ReaderConfig()
    generation: GenerationConfig = GenerationConfig()


Run = TrainingRun | DemoConfig
Kind = TypeVar("Kind", TokenizerRun, GeneratorRun, DemoConfig)

RUNS: dict[str, type[Run]] = {"tokenizer": TokenizerRun, "generator": GeneratorRun, "demo": DemoConfig}


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Read, merge and check. Raises ConfigError naming the file and the key."""
    return run_of(read_values(path, overrides), str(path))


def run_of(values: Mapping[str, Any], where: str) -> Run:
    """Settings that were read already. Raises ConfigError naming `where` and the key."""
    kind = values.get("kind")
    if kind not in RUNS:
        near = difflib.get_close_matches(str(kind), RUNS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(RUNS)}"
        raise ConfigError(f"{where}: kind={kind!r}; {hint}")
    return RUNS[kind].parse(values, where)


def load_kind(wanted: type[Kind], path: str | Path, overrides: Sequence[str] = ()) -> Kind:
    """A config that must be of one kind, which ConfigError names otherwise."""
    run = load_run(path, overrides)
    if not isinstance(run, wanted):
        names = [name for name, kind in RUNS.items() if kind is wanted]
        raise ConfigError(f"{path}: kind={run.kind}; this command needs kind: {' or '.join(names)}")
    return run


def load_training_run(path: str | Path, overrides: Sequence[str] = ()) -> TrainingRun:
    """A config of any kind that trains."""
    return require_training(load_run(path, overrides), str(path))


def require_training(run: Run, where: str) -> TrainingRun:
    """Raise ConfigError that lists the kinds that train unless this is one."""
    if not isinstance(run, TrainingRun):
        names = [name for name, kind in RUNS.items() if issubclass(kind, TrainingRun)]
        raise ConfigError(f"{where}: kind={run.kind} does not train; choose a config of kind {' or '.join(names)}")
    return run
