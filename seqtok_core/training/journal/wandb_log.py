"""Weights & Biases, when a run's settings ask for it: the same lines as metrics.jsonl, one curve per run folder.

The id of the curve lies in wandb.json of the run folder, so that a continued run continues its curve.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training.config import WandbConfig

log = logging.getLogger(__name__)

ID_FILE = "wandb.json"


class WandbLog:
    """Raises ConfigError when the package is missing or the service refuses the run."""

    def __init__(self, config: WandbConfig, folder: Path, settings: Mapping[str, Any]) -> None:
        self._broken = False
        try:
            import wandb
        except ImportError:
            raise ConfigError(
                "`wandb`: the package is not installed; `pip install wandb`, or set `wandb=null`"
            ) from None
        try:
            self._run = wandb.init(
                project=config.project,
                entity=config.entity,
                name=config.name or folder.resolve().name,
                mode=config.mode,
                id=_identity(folder),
                resume="allow",
                dir=str(folder),
                config=dict(settings),
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"`wandb`: {' '.join(str(error).split())}; log in (`wandb login`), or set `wandb.mode=offline`"
            ) from None

    def write(self, line: Mapping[str, float | int | None]) -> None:
        """A service that fails later does not end the training: metrics.jsonl and TensorBoard have the lines."""
        if self._broken:
            return
        try:
            known = {name: value for name, value in line.items() if value is not None}
            self._run.log(known, step=int(line["step"] or 0))
        except Exception as error:
            self._broken = True
            log.warning("Weights & Biases does not answer (%s); metrics.jsonl and TensorBoard go on", error)

    def close(self) -> None:
        if not self._broken:
            self._run.finish()


def _identity(folder: Path) -> str:
    path = folder / ID_FILE
    if path.exists():
        return str(files.read_json(path)["id"])
    identity = secrets.token_hex(4)
    files.write_json(path, {"id": identity})
    return identity
