"""A label eye trained on the training split and kept in a folder, so that all pictures of a project meet one and the
same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipelines.samples import ImageTextBatch, to_model
from seqtok.evaluation.eyes.classifier import LabelEye
from seqtok.evaluation.readers.folder import ReaderShelf
from seqtok.evaluation.readers.spoiling import spoil
from seqtok.evaluation.readers.training import Progress, ReaderTraining, fit_reader
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.errors import DataError

_SHIFT = 4  # pixels that a training picture is moved by at most
_CARD = """# Eye

Names the labels of pictures of one data set. Trained by `seqtok` on its training split; judges and nothing else.
"""


class EyeConfig(ReaderTraining):
    """Pictures are seen mirrored and moved, half of them spoilt as drawn ones may be."""

    images: int = 100_000
    lr: float = 2e-3
    width: int = 32  # channels of the first layer


class KeptEyeConfig(EyeConfig):
    """With the number of classes of each label."""

    classes: Mapping[str, int]


_SHELF = ReaderShelf("seqtok eye", _CARD, KeptEyeConfig, lambda config: LabelEye(config.classes, config.width))


def load_or_train_eye(
    folder: Path,
    config: EyeConfig,
    classes: Mapping[str, int],
    train: Callable[[], ImageTextBatch],
    progress: Progress | None = None,
) -> LabelEye:
    """The eye of `folder` when it was trained with `config` and `classes`; otherwise it is trained on the pictures and
    labels that `train` reads, and written there. Raises DataError where no label has two classes."""
    kept = KeptEyeConfig(**config.model_dump(), classes={name: n for name, n in classes.items() if n > 1})
    if not kept.classes:
        raise DataError("these pictures have no labels of two classes; an eye learns to name some")

    def trained() -> LabelEye:
        batch = train()
        return train_eye(batch.images, batch.labels, kept, progress)

    return _SHELF.load_or_train(folder, kept, trained)


def train_eye(
    images: Tensor, labels: Mapping[str, Tensor], config: KeptEyeConfig, progress: Progress | None = None
) -> LabelEye:
    """images (N, 3, H, W) uint8, labels name -> (N,) int64, -1 where there is none."""

    def loss_of(eye: LabelEye, step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(images), (config.batch,), generator=generator)
        said = eye(spoil(_moved(to_model(images[rows]), generator), generator))
        losses = [F.cross_entropy(said[name], labels[name][rows], ignore_index=-1) for name in config.classes]
        return torch.stack([loss for loss in losses if torch.isfinite(loss)]).sum()

    return fit_reader(lambda: LabelEye(config.classes, config.width), loss_of, config, progress)


def eye_id(eye: LabelEye) -> str:
    """Hash of classes and weights."""
    return fingerprint.of_model(eye.classes, eye.state_dict())


def _moved(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored in half of the pictures; all of a batch moved by the same few pixels."""
    flip = torch.rand(len(pixels), 1, 1, 1, generator=generator) < 0.5
    pixels = torch.where(flip, pixels.flip(3), pixels)
    across, down = (int(torch.randint(2 * _SHIFT + 1, (), generator=generator)) for _ in range(2))
    padded = F.pad(pixels, (_SHIFT,) * 4, mode="reflect")
    return padded[..., down : down + pixels.shape[-2], across : across + pixels.shape[-1]]
