"""A trained reader in a folder, so that all pictures of a project are judged by one and the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from seqtok.evaluation.readers.training import Reader, ReaderTraining
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.files import folder_lock

FORMAT, _SECTION = 1, "reader"


@dataclass(frozen=True)
class ReaderShelf(Generic[Reader]):
    """How readers of one kind are kept; `build` makes one of its settings."""

    kind: str  # of the model folder
    card: str
    config: type[ReaderTraining]
    build: Callable[[Any], Reader]

    def load_or_train(self, folder: Path, config: ReaderTraining, train: Callable[[], Reader]) -> Reader:
        """The reader of `folder` when it was trained with `config`; otherwise it is trained and written there."""
        folder = Path(folder)
        if (found := self._kept(folder, config)) is not None:  # without the lock: several judges may read one folder
            return found
        with folder_lock(folder):
            reader = train()
            parts = {_SECTION: config.model_dump(mode="json")}
            model_folder.write_model_folder(folder, self.kind, FORMAT, parts, reader.state_dict(), self.card)
            return reader

    def load(self, folder: Path) -> Reader:
        """The reader of `folder`, whatever its settings. Raises DataError where there is none."""
        parts = model_folder.read_config(folder, self.kind, FORMAT)
        found = model_folder.read_section(parts, _SECTION, folder)
        config = self.config.parse(found, str(folder / model_folder.CONFIG))
        reader: Reader = model_folder.load_model(lambda: self.build(config), folder)
        return reader

    def _kept(self, folder: Path, config: ReaderTraining) -> Reader | None:
        """None when there is none, or one of other settings."""
        if not (folder / model_folder.CONFIG).is_file():
            return None
        if model_folder.read_config(folder, self.kind, FORMAT).get(_SECTION) != config.model_dump(mode="json"):
            return None
        return self.load(folder)
