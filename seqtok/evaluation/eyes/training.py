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
from seqtok.evaluation.scenes.reader_training import blur
from seqtok_core.foundation import fingerprint, model_folder
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import folder_lock

KIND, FORMAT = "seqtok eye", 1
_SHIFT = 4  # pixels that a training picture is moved by at most
_CARD = """# Eye

Names the labels of pictures of one data set. Trained by `seqtok` on its training split; judges and nothing else.
"""


class EyeConfig(Config):
    """`images` are seen in all: mirrored, moved, half of them blurred or made noisy, as drawn ones may be."""

    images: int = 100_000
    batch: int = 128
    lr: float = 2e-3  # peak of one cosine cycle with a short warm-up, AdamW
    width: int = 32  # channels of the first layer
    seed: int = 0


def load_or_train_eye(
    folder: Path,
    config: EyeConfig,
    train: Callable[[], ImageTextBatch],
    progress: Callable[[int, float], None] | None = None,
) -> LabelEye:
    """The eye of `folder` when it was trained with `config`; otherwise it is trained on the pictures and labels that
    `train` reads, and written there. Raises DataError where there are no labels."""
    folder = Path(folder)
    if (found := _load(folder, config)) is not None:  # without the lock: several judges may read one folder
        return found
    with folder_lock(folder):
        batch = train()
        eye = train_eye(batch.images, batch.labels, config, progress)
        parts = {"eye": config.model_dump(mode="json"), "classes": eye.classes}
        model_folder.write_model_folder(folder, KIND, FORMAT, parts, eye.state_dict(), _CARD)
        return eye


def train_eye(
    images: Tensor,
    labels: Mapping[str, Tensor],
    config: EyeConfig,
    progress: Callable[[int, float], None] | None = None,
) -> LabelEye:
    """images (N, 3, H, W) uint8, labels name -> (N,) int64, -1 where there is none. A pure function of its arguments
    on one machine with one number of threads."""
    classes = {name: int(own.max()) + 1 for name, own in labels.items() if int(own.max()) > 0}
    if not classes:
        raise DataError("the training pictures have no labels; an eye learns to name some")
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # initial weights
        eye = LabelEye(classes, config.width)
    steps = max(2, config.images // config.batch)
    optimizer = torch.optim.AdamW(eye.parameters(), lr=config.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=steps, pct_start=0.15)
    eye.train()
    for step in range(steps):
        rows = torch.randint(len(images), (config.batch,), generator=generator)
        said = eye(_varied(to_model(images[rows]), generator))
        losses = [F.cross_entropy(said[name], labels[name][rows], ignore_index=-1) for name in classes]
        loss = torch.stack([loss for loss in losses if torch.isfinite(loss)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress((step + 1) * config.batch, float(loss.detach()))
    return eye.eval()


def eye_id(eye: LabelEye) -> str:
    """Hash of classes and weights."""
    return fingerprint.of_model(eye.classes, eye.state_dict())


def _load(folder: Path, config: EyeConfig) -> LabelEye | None:
    """None when there is none, or one of other settings."""
    if not (folder / model_folder.CONFIG).is_file():
        return None
    parts = model_folder.read_config(folder, KIND, FORMAT)
    if parts.get("eye") != config.model_dump(mode="json"):
        return None
    classes = model_folder.read_section(parts, "classes", folder)
    return model_folder.load_model(lambda: LabelEye(classes, config.width), folder)


def _varied(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored in half, moved by some pixels; half of the batches blurred and noisy."""
    flip = torch.rand(len(pixels), 1, 1, 1, generator=generator) < 0.5
    pixels = torch.where(flip, pixels.flip(3), pixels)
    across, down = (int(torch.randint(2 * _SHIFT + 1, (), generator=generator)) for _ in range(2))
    padded = F.pad(pixels, (_SHIFT,) * 4, mode="reflect")
    pixels = padded[..., down : down + pixels.shape[-2], across : across + pixels.shape[-1]]
    if torch.rand((), generator=generator) < 0.5:
        pixels = blur(pixels, float(torch.rand((), generator=generator)))
        pixels = pixels + 0.1 * torch.randn(pixels.shape, generator=generator)
    return pixels
