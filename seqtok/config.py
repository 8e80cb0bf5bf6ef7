"""What one run is: a file of settings, each part owned by its room, and `key=value` words that change it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ar_model import GeneratorConfig, GeneratorObjectiveConfig
from data_pipelines.image_text import LoaderConfig
from data_pipelines.loading import ReadConfig
from data_pipelines.remote import scheme_of
from data_pipelines.stream import StreamConfig
from data_pipelines.vocabulary import FILE as CAPTIONS_FILE
from seq_tokenizer import TokenizerConfig, TokenizerTrainingConfig
from seqtok.evaluation.generation_runner import GenerationConfig
from seqtok.evaluation.reader_training import ReaderConfig
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training import TrainConfig

Count = Annotated[int, Field(ge=1)]


class ImageData(Config):
    """Where pictures and captions come from: a folder of shards, or a stream."""

    folder: Path | None = None
    split: str = "train"
    stream: StreamConfig | None = None
    captions: Path | None = None  # sentencepiece model; None: captions.model in the folder
    loader: LoaderConfig = LoaderConfig()

    @field_validator("folder", mode="before")
    @classmethod
    def _is_a_folder(cls, folder: Any) -> Any:
        if isinstance(folder, str) and scheme_of(folder):
            raise ValueError("not a folder; streams are named in data.stream.shards, with data.folder=null")
        return folder

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.folder is None) == (self.stream is None):
            raise ValueError(
                "set either data.folder (a folder of shards) or data.stream.shards (a stream; with data.folder=null)"
            )
        if self.stream is not None and self.captions is None:
            raise ValueError("captions: a stream has no folder, so name the captions model: data.captions=FILE")
        return self

    @property
    def captions_path(self) -> Path:
        if self.captions is not None:
            return self.captions
        assert self.folder is not None
        return self.folder / CAPTIONS_FILE

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.folder) if self.stream is None else self.stream.patterns[0]


class LatentData(Config):
    """Where latents and captions come from."""

    folder: Path
    split: str = "train"
    loader: ReadConfig = ReadConfig()

    @property
    def captions_path(self) -> Path:
        return self.folder / CAPTIONS_FILE


class TokenizerRun(Config):
    """seqtok tokenizer train."""

    kind: Literal["tokenizer"]
    out: Path
    data: ImageData
    model: TokenizerConfig
    objective: TokenizerTrainingConfig = TokenizerTrainingConfig()
    train: TrainConfig


class GeneratorRun(Config):
    """seqtok generator train."""

    kind: Literal["generator"]
    out: Path
    data: LatentData
    model: GeneratorConfig = GeneratorConfig()
    objective: GeneratorObjectiveConfig = GeneratorObjectiveConfig()
    tokenizer: Path | None = None  # model folder: draws sample pictures during training
    train: TrainConfig


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


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file (or the name of a shipped one) with `key.sub=value` words merged over it.

    Duplicate keys, tags that build objects, and interpolations are refused.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    bad = [word for word in overrides if "=" not in word]
    if bad:
        raise ConfigError(f"{bad[0]!r}: changes to a config are written key=value")
    file = find_config(path)
    try:
        merged = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=False)
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError, AttributeError, OSError, LookupError) as error:
        raise ConfigError(f"{file}: not readable as settings ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: a config is a mapping of keys to values")
    found = _interpolation(values)
    if found:
        raise ConfigError(f"{file}: {found!r}: interpolations are not resolved; write the value")
    return {str(key): value for key, value in values.items()}


def find_config(path: str | Path) -> Path:
    """A file, or a shipped config by its name. Raises ConfigError that names the nearest shipped one."""
    file = Path(path)
    if file.is_file():
        return file
    shipped = shipped_configs()
    name = file.name.removesuffix(".yaml")
    if str(file) == file.name and name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; shipped are: {', '.join(sorted(shipped))}"
    raise ConfigError(f"{path}: no such config{hint}")


def shipped_configs() -> dict[str, Path]:
    """Name -> file of the configs that come with seqtok."""
    folder = Path(str(resources.files("seqtok.configs")))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def dump(config: Config) -> str:
    """The resolved settings as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def _interpolation(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((found for item in value.values() if (found := _interpolation(item))), None)
    if isinstance(value, list):
        return next((found for item in value if (found := _interpolation(item))), None)
    return value if isinstance(value, str) and "${" in value else None
