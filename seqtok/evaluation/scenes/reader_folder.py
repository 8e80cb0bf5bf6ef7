"""A trained reader in a folder, so that all pictures of a project are judged by one and the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_pipelines.scenes import Scene
from seqtok.evaluation.scenes.generation import judge, read_pictures, real_pictures, share
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_training import ReaderConfig, train_reader
from seqtok.evaluation.scenes.scoring import ATTRIBUTES
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.files import folder_lock

KIND, FORMAT = "seqtok reader", 1
_CARD = """# Reader of drawn scenes

Says which shapes, colours, sizes, places and background a picture of a drawn scene shows.
Trained by `seqtok` on freshly drawn scenes; judges generated pictures and nothing else.
"""


def load_or_train_reader(
    folder: Path, config: ReaderConfig, progress: Callable[[int, float], None] | None = None
) -> SceneReader:
    """The reader of `folder` when it was trained with `config`; otherwise it is trained and written there."""
    folder = Path(folder)
    if (found := _load(folder, config)) is not None:  # without the lock: several judges may read one folder
        return found
    with folder_lock(folder):
        reader = train_reader(config, progress)
        parts = {"reader": config.model_dump(mode="json")}
        model_folder.write_model_folder(folder, KIND, FORMAT, parts, reader.state_dict(), _CARD)
        return reader


def load_reader(folder: Path) -> SceneReader:
    """The reader of `folder`, whatever its settings. Raises DataError where there is none."""
    found = model_folder.read_section(model_folder.read_config(folder, KIND, FORMAT), "reader", folder)
    config = ReaderConfig.parse(found, str(folder / model_folder.CONFIG))
    return model_folder.load_model(lambda: SceneReader(config.width), folder)


def _load(folder: Path, config: ReaderConfig) -> SceneReader | None:
    """None when there is none, or one of other settings."""
    if not (folder / model_folder.CONFIG).is_file():
        return None
    if model_folder.read_config(folder, KIND, FORMAT).get("reader") != config.model_dump(mode="json"):
        return None
    return load_reader(folder)


def reader_quality(reader: SceneReader, scenes: list[Scene], size: int) -> dict[str, float | None]:
    """Attribute -> share that the reader reads rightly from real pictures (size x size) of held-out
    scenes."""
    verdicts = judge(read_pictures(reader, real_pictures(scenes, size)), scenes)
    return {attribute: share(verdicts, attribute) for attribute in ATTRIBUTES}
