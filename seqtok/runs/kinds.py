"""The kinds of run by name, and config files read as one of them. A new kind is a line in RUNS."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seqtok.runs.base import TrainingRun
from seqtok.runs.coevolution.run import CoevolutionRun
from seqtok.runs.generators.documents import DocumentsRun
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.settings import read_values
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.foundation.errors import ConfigError

if TYPE_CHECKING:
    from seqtok.runs.demo.config import DemoConfig
    from seqtok.runs.judge.orders.suite import SuiteConfig

Kind = TypeVar("Kind", bound=TrainingRun)

RUNS: dict[str, type[TrainingRun]] = {
    "tokenizer": TokenizerRun,
    "generator": GeneratorRun,
    "documents": DocumentsRun,
    "coevolution": CoevolutionRun,
}
_DEMO, _ORDERING = "demo", "ordering"  # train nothing themselves


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> TrainingRun | DemoConfig | SuiteConfig:
    """Read, merge and check. Raises ConfigError naming the file and the key."""
    values, where = read_values(path, overrides), str(path)
    if values.get("kind") == _DEMO:
        from seqtok.runs.demo.config import DemoConfig  # with the judge, which no training shall load

        return DemoConfig.parse(values, where)
    if values.get("kind") == _ORDERING:
        from seqtok.runs.judge.orders.suite import SuiteConfig

        return SuiteConfig.parse(values, where)
    return run_of(values, where)


def load_training_run(path: str | Path, overrides: Sequence[str] = ()) -> TrainingRun:
    """A config of any kind that trains."""
    return run_of(read_values(path, overrides), str(path))


def run_of(values: Mapping[str, Any], where: str) -> TrainingRun:
    """Settings that were read already. Raises ConfigError naming `where` and the key."""
    kind = values.get("kind")
    if kind in (_DEMO, _ORDERING):
        raise ConfigError(f"{where}: kind={kind} does not train; choose a config of kind {' or '.join(RUNS)}")
    if kind not in RUNS:
        near = difflib.get_close_matches(str(kind), [*RUNS, _DEMO, _ORDERING], n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join([*RUNS, _DEMO, _ORDERING])}"
        raise ConfigError(f"{where}: kind={kind!r}; {hint}")
    return RUNS[kind].parse(values, where)


def load_kind(wanted: type[Kind], path: str | Path, overrides: Sequence[str] = ()) -> Kind:
    """A config that must be of one kind, which ConfigError names otherwise."""
    run = load_run(path, overrides)
    if not isinstance(run, wanted):
        names = [name for name, kind in RUNS.items() if kind is wanted]
        raise ConfigError(f"{path}: kind={run.kind}; this command needs kind: {' or '.join(names)}")
    return run
