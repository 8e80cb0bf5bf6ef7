"""The parts of a run that can be explored: its models, its held-out data, its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ar_model.generator import KIND as SEQUENCE_MODEL
from data_pipelines.shards.manifest import FILE as MANIFEST
from seqtok.evaluation.report.report import REPORT
from seqtok.runs.settings import read_values
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import read_json
from seqtok_core.foundation.model_folder import CONFIG

_SETTINGS = "config.yaml"  # of a training's run


@dataclass
class Explored:
    """`notes` say what was looked for and is not there, a sentence each."""

    tokenizer: str  # model folder or hub id
    generator: str | None = None
    data: Path | None = None
    report: Path | None = None
    notes: list[str] = field(default_factory=list)


def find_parts(run: str | None, tokenizer: str | None = None, generator: str | None = None) -> Explored:
    """`run`: a demo's folder, a run or model folder of a tokenizer, or a hub id; models that are named go before those
    found there. Raises ConfigError or DataError that says the way out."""
    if run is None and tokenizer is None:
        raise ConfigError("nothing to explore: name a run's folder, or a model folder with --tokenizer")
    folder = Path(run) if run is not None else None
    is_demo = folder is not None and (folder / "tokenizer").is_dir()
    if folder is not None and not is_demo and _is_sequence_model(folder):
        if tokenizer is None:
            raise ConfigError(f"{run}: a sequence model; name the tokenizer of its latents, too: --tokenizer MODEL")
        generator = generator or str(_model_of(folder))
    own = folder / "tokenizer" if folder is not None and is_demo else folder
    chosen = tokenizer if tokenizer is not None else str(_model_of(own) if own is not None and own.exists() else run)
    parts = Explored(chosen, generator)
    if folder is not None and is_demo and generator is None:
        _add_generator(parts, folder / "generator")
    _add_data(parts, folder, own if tokenizer is None else Path(tokenizer).parent)
    _add_report(parts, folder)
    return parts


def _model_of(run: Path) -> Path:
    """The model folder of a training's run; any other folder is one. Raises DataError where there is none yet."""
    if (run / "model" / CONFIG).is_file():
        return run / "model"
    if (run / _SETTINGS).is_file() and not (run / CONFIG).is_file():
        raise DataError(
            f"{run}: its training has not ended and there is no model yet; wait for it, or make one of a checkpoint "
            "(`seqtok checkpoint export`) and name it with --tokenizer"
        )
    return run


def _is_sequence_model(folder: Path) -> bool:
    configs = [place / CONFIG for place in (folder, folder / "model") if (place / CONFIG).is_file()]
    content: Any = read_json(configs[0]) if configs else None
    return isinstance(content, dict) and content.get("kind") == SEQUENCE_MODEL


def _add_generator(parts: Explored, run: Path) -> None:
    if (run / "model" / CONFIG).is_file():
        parts.generator = str(run / "model")
    else:
        parts.notes.append(f"{run}: no sequence model yet, so nothing is drawn")


def _add_data(parts: Explored, folder: Path | None, tokenizer_run: Path | None) -> None:
    places = [folder / "data"] if folder is not None and (folder / "data").is_dir() else []
    settings = tokenizer_run / _SETTINGS if tokenizer_run is not None else None
    if not places and settings is not None and settings.is_file():
        data = read_values(settings).get("data")
        named = data.get("folder") if isinstance(data, dict) else None
        places = [Path(named)] if isinstance(named, str) else []
    if not places:
        return
    if (places[0] / MANIFEST).is_file():
        parts.data = places[0]
    else:
        parts.notes.append(f"{places[0]}: no prepared data set, so there are no held-out pictures and captions")


def _add_report(parts: Explored, folder: Path | None) -> None:
    places = [folder / "report" / REPORT, folder / REPORT] if folder is not None else []
    parts.report = next((place for place in places if place.is_file()), None)
