"""The kinds of run by name, and config files read as one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from seqtok.evaluation.generation_runner import GenerationConfig
from seqtok.evaluation.scenes.reader_training import ReaderConfig
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


Run = TokenizerRun | GeneratorRun | DemoConfig


RUNS: dict[str, type[Run]] = {"tokenizer": TokenizerRun, "generator": GeneratorRun, "demo": DemoConfig}


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Read, merge and check. Raises ConfigError naming the file and the key."""
    values = read_values(path, overrides)
    kind = values.get("kind")
    if kind not in RUNS:
        raise ConfigError(f"{path}: kind={kind!r}; choose one of {', '.join(RUNS)}")
    return RUNS[kind].parse(values, str(path))


def load_tokenizer_run(path: str | Path, overrides: Sequence[str] = ()) -> TokenizerRun:
    run = load_run(path, overrides)
    if not isinstance(run, TokenizerRun):
        raise ConfigError(f"{path}: kind={run.kind}; this command needs kind: tokenizer")
    return run


def load_generator_run(path: str | Path, overrides: Sequence[str] = ()) -> GeneratorRun:
    run = load_run(path, overrides)
    if not isinstance(run, GeneratorRun):
        raise ConfigError(f"{path}: kind={run.kind}; this command needs kind: generator")
    return run
