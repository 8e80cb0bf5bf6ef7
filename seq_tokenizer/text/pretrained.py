"""A model of pictures and texts that somebody else trained: an open_clip folder or hub id, used and never changed.

Shapes: B pictures or texts, E shared space.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from seq_tokenizer.text.tower import _open_clip
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.foundation.model_folder import is_hub_id

_AT_ONCE = 256


class PicturesAndTexts:
    """Both towers. Raises ConfigError where there is no such model."""

    def __init__(self, name: str) -> None:
        """`name`: a folder with open_clip_config.json and weights, or the hub id (owner/name) of one."""
        here = Path(name).is_dir()
        if not here and not is_hub_id(name):
            raise ConfigError(f"{name}: no open_clip model, neither a folder nor a hub id (owner/name)")
        source = f"local-dir:{name}" if here else f"hf-hub:{name}"
        try:
            with torch.random.fork_rng(devices=[]):  # what is loaded was first drawn
                self._model = _open_clip().create_model(source, require_pretrained=True).eval()
            self._tokenize = _open_clip().get_tokenizer(source)
        except Exception as error:  # the hub's, open_clip's and torch's own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"{name}: no open_clip model, neither a folder nor a hub id ({reason})") from None
        visual = self._model.visual
        size = visual.image_size
        self._size = (size, size) if isinstance(size, int) else tuple(size)
        self._mean = torch.tensor(visual.preprocess_cfg["mean"]).view(3, 1, 1)
        self._std = torch.tensor(visual.preprocess_cfg["std"]).view(3, 1, 1)

    def to(self, device: torch.device) -> None:
        self._model.to(device)

    def weights(self) -> dict[str, Tensor]:
        """Of both towers, by name."""
        return dict(self._model.state_dict())

    @torch.no_grad()
    def of_pictures(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, E) float32 of length 1."""
        device = next(self._model.parameters()).device
        found = []
        for part in pictures.split(_AT_ONCE):
            x = F.interpolate(part.to(device).float() / 255, self._size, mode="bicubic", antialias=True).clamp(0, 1)
            found.append(self._model.encode_image((x - self._mean.to(device)) / self._std.to(device), normalize=True))
        return torch.cat(found).float()

    @torch.no_grad()
    def of_texts(self, texts: str | Sequence[str]) -> Tensor:
        """-> (B, E) float32 of length 1; longer texts are cut, as open_clip does. A text alone is one, not many."""
        device = next(self._model.parameters()).device
        ids = self._tokenize([texts] if isinstance(texts, str) else list(texts)).to(device)
        return torch.cat([self._model.encode_text(part, normalize=True) for part in ids.split(_AT_ONCE)]).float()
