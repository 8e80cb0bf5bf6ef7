"""A run's checkpoints as a user sees them: listed, verified, made into a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from seqtok.runs.base import TrainingRun
from seqtok.runs.kinds import run_of
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError, SeqtokError
from seqtok_core.foundation.model_folder import require_free
from seqtok_core.training import run_folder
from seqtok_core.training.checkpoints import checkpoint, reading

# Of sample pictures alone; weights that the checkpoint's take the place of; held-out data.
_NOT_FOR_EXPORT = ("reader", "init_from", "validation")


def table(run: Path) -> list[list[str]]:
    """Rows of text: step, images, size, age, written by, state. Sizes are checked, hashes are not."""
    rows = []
    for row in facts(run):
        cells = [row["step"], row.get("images", "?"), _size(row["bytes"]), _age(row["age_s"])]
        rows.append([str(c) for c in cells] + [row.get("written_by", "?"), str(row["problem"] or "whole")])
    return rows


def facts(run: Path) -> list[dict[str, Any]]:
    """The same as JSON takes it, with the path of each; `problem` is null for a whole one, and what its manifest would
    say is absent where that cannot be read."""
    found = []
    for path in reading.all_of(Path(run)):
        row = checkpoint.checkpoint_summary(path)
        problem = row["problem"]
        found.append({"path": str(path), **row, "problem": None if problem is None else str(problem)})
    return found


def verify_all(path: Path) -> list[tuple[Path, SeqtokError | None]]:
    """Each checkpoint of a run (or the one named) and what is wrong with it (None: whole), hashes included."""
    return [(found, checkpoint.problem_of(found)) for found in reading.all_of(path)]


def export_model(
    path: Path, out: Path, averaged: bool = True, data: Path | None = None, tokenizer: Path | None = None
) -> Path:
    """Write the model folder that a run finished at this checkpoint would have; returns the checkpoint used.

    `data` and `tokenizer` replace the folders of that name in the run's config, where they have moved: a tokenizer
    measures its latents on training images, a sequence model is checked against the tokenizer that its run names.
    Raises ConfigError, DataError or MismatchError.
    """
    require_free(out)
    source = reading.find_checkpoint(path)
    run, recorded = _config_of(source, data, tokenizer)
    objective, loader = run.build()
    _require_same_content(source, recorded, run.content(loader))
    reading.fill(objective, source, averaged)
    objective.requires_grad_(False).eval()
    run.hooks().on_finish(objective, out)
    return source


def _require_same_content(source: Path, recorded: dict[str, Any], found: dict[str, str]) -> None:
    """Raises MismatchError when the run of a checkpoint learned from something else than what lies there now."""
    differing = [key for key in sorted(recorded) if recorded[key] != found.get(key)]
    if differing:
        shown = "; ".join(f"{key}: {recorded[key]} there, {found.get(key, 'absent')} here" for key in differing)
        raise MismatchError(
            f"{source}: its run learned from other data than lie here now ({shown}), so the model would be given "
            "captions, latents or statistics that are not its own; put them back, or name their folder with `data`"
        )


def _config_of(source: Path, data: Path | None, tokenizer: Path | None) -> tuple[TrainingRun, dict[str, Any]]:
    """The settings of the run that a checkpoint lies in, and what they say of its data."""
    where = source.resolve().parent.parent / "config.yaml"
    try:
        values = yaml.safe_load(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{where}: no such file; a checkpoint is exported from within its run folder") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: not readable as settings ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f"{where}: not the settings of a run")
    recorded = {key: values.pop(key) for key in run_folder.CONTENT_KEYS & values.keys()}
    recorded.pop("init_id", None)  # the weights that it began with have done their work
    if data is not None:
        values["data"] = {**values["data"], "folder": str(data)}
    values |= _tokenizer_of(values, tokenizer, where)
    values |= {key: None for key in _NOT_FOR_EXPORT if key in values}
    return run_of({**values, "out": str(where.parent)}, str(where)), recorded


def _tokenizer_of(values: dict[str, Any], moved: Path | None, where: Path) -> dict[str, Any]:
    """The key of a run's settings that names a tokenizer's model folder, with where that is now; empty for none."""
    key = {"generator": "tokenizer", "tokenizer": "frozen"}.get(values.get("kind", ""), "")
    named = values.get(key)
    if moved is not None and key == "frozen" and named is None:
        raise ConfigError(f"{where}: this tokenizer was trained for no other one; leave out --tokenizer")
    if moved is None and named is not None and not Path(named).is_dir():
        raise DataError(f"{where}: names the tokenizer {named}, which is not there; say where it is now: --tokenizer")
    folder = named if moved is None else str(moved)
    return {} if folder is None else {key: folder}


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _age(seconds: float) -> str:
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
