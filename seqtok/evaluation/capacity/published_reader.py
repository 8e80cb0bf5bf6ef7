"""A reader of characters that somebody else trained, on print of all kinds: PP-OCR, as it comes inside the wheel of
rapidocr (`pip install rapidocr onnxruntime`). A second opinion beside the reader that knows our pages alone.

Shapes: B pages, N = 64 cells in reading order, A characters; class A is the empty cell.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipelines.glyphs import CELLS, SIDE
from seqtok_core.foundation.errors import ConfigError

_LEAST_CELL = 48  # pixels, to which a page is enlarged: so high lines of print are


class PublishedReader:
    """Finds lines of print and names their characters; each is of the cell that its middle lies in."""

    def __init__(self, engine: Any, alphabet: str, identity: str) -> None:
        self._engine, self._alphabet, self.identity = engine, alphabet, identity

    def characters(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, H) uint8 -> (B, N) int64, what is read in each cell; A where nothing of the alphabet is."""
        return torch.stack([self._of_page(page) for page in pictures])

    def _of_page(self, page: Tensor) -> Tensor:
        read = torch.full((CELLS,), len(self._alphabet))
        factor = max(1, -(-_LEAST_CELL * SIDE // page.shape[-1]))
        large = F.interpolate(page[None].float(), scale_factor=factor, mode="bicubic").clamp(0, 255)[0]
        pixels = large.flip(0).permute(1, 2, 0).to(torch.uint8).numpy()  # blue, green, red
        found = self._engine(pixels, use_cls=False, return_word_box=True, return_single_char_box=True)
        side = pixels.shape[0] / SIDE
        for text, box in _words(found):
            column, row = (sum(corner[axis] for corner in box) / len(box) / side for axis in (0, 1))
            if text in self._alphabet and 0 <= row < SIDE and 0 <= column < SIDE:
                read[int(row) * SIDE + int(column)] = self._alphabet.index(text)
        return read


def _words(found: Any) -> Iterator[tuple[str, Sequence[Sequence[float]]]]:
    """Single characters and the corners of their boxes."""
    for line in found.word_results or ():
        if not line or isinstance(line[0], str):  # ("", 1.0, None) where no line was read
            continue
        for text, _, box in line:
            if len(text) == 1 and box is not None:
                yield text, box


def published_reader(alphabet: str) -> PublishedReader:
    """Raises ConfigError where rapidocr is not installed."""
    try:
        import rapidocr
    except ImportError as error:
        raise ConfigError(f"the published reader needs {error.name}: pip install rapidocr onnxruntime") from None
    with _quiet():
        engine = rapidocr.RapidOCR()
    weights = sorted((Path(rapidocr.__file__).parent / "models").glob("*.onnx"))
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in weights))
    return PublishedReader(engine, alphabet, digest.hexdigest()[:16])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It tells the terminal which files it opens."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
