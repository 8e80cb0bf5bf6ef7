"""A trained reader in a folder, so that all pictures of a project are judged by one and the same."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.scenes import Scene
from seqtok.evaluation.readers.folder import ReaderShelf
from seqtok.evaluation.readers.training import Progress
from seqtok.evaluation.scenes.generation import judge, read_pictures, real_pictures, share
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_training import ReaderConfig, train_reader
from seqtok.evaluation.scenes.scoring import ATTRIBUTES

KIND = "seqtok reader"
_CARD = """# Reader of drawn scenes

Says which shapes, colours, sizes, places and background a picture of a drawn scene shows.
Trained by `seqtok` on freshly drawn scenes; judges generated pictures and nothing else.
"""
_SHELF = ReaderShelf(KIND, _CARD, ReaderConfig, lambda config: SceneReader(config.width))


def load_or_train_reader(folder: Path, config: ReaderConfig, progress: Progress | None = None) -> SceneReader:
    """The reader of `folder` when it was trained with `config`; otherwise it is trained and written there."""
    return _SHELF.load_or_train(folder, config, lambda: train_reader(config, progress))


def load_reader(folder: Path) -> SceneReader:
    """The reader of `folder`, whatever its settings. Raises DataError where there is none."""
    return _SHELF.load(folder)


def reader_quality(reader: SceneReader, scenes: list[Scene], size: int) -> dict[str, float | None]:
    """Attribute -> share that the reader reads rightly from real pictures (size x size) of held-out
    scenes."""
    verdicts = judge(read_pictures(reader, real_pictures(scenes, size)), scenes)
    return {attribute: share(verdicts, attribute) for attribute in ATTRIBUTES}
