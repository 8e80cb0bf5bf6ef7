"""A network that somebody else trained and nobody here changes: it says how pictures look to it.

Three forms: a torchscript file, whose outputs are the features; a timm model folder (config.json and
model.safetensors) and an open_clip one (open_clip_config.json and open_clip_model.safetensors), whose layers are
numbered; a hub id of such a folder. It is no module of who holds it: no weight of it is trained, saved or copied.

Shapes: B images, C channels, h x w places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.shape import Positive
from seq_tokenizer.text.tower import _open_clip
from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.model_folder import fetch_folder, is_hub_id

Three = tuple[float, float, float]
_HALF: Three = (0.5, 0.5, 0.5)
_FORMS = "a torchscript file, a timm or an open_clip model folder, or the hub id of one (owner/name)"


class FrozenConfig(Config):
    """Which network, which of its layers, and how it wants its pictures."""

    network: str | None = Field(default=None, description=_FORMS)
    layers: tuple[int, ...] = (-1,)  # outputs of a torchscript file, layers or stages of the others; -1: the last
    size: Positive | None = None  # pixels, to which pictures are scaled; None: what the network was made for, if fixed
    mean: Three | None = None  # of the network's pixels in [0, 1]; None: what its folder says, else 0.5
    std: Three | None = None


class FrozenNetwork:
    """Pictures in [-1, 1] -> feature maps. Gradients reach the pictures."""

    def __init__(self, config: FrozenConfig, who: str, normed: bool = False) -> None:
        """`normed`: with the network's last norm, if it has one. Raises ConfigError where there is no such network."""
        if config.network is None:
            raise ConfigError(f"`{who}.network` is not set: name {_FORMS}, or set `{who}` to null")
        self.name, self.layers, self._who = config.network, list(config.layers), who
        with torch.random.fork_rng(devices=[]):  # what is loaded was first drawn; nobody else's weights shall know
            self._module, self._features, size, mean, std = _load(config.network, who, normed)
        self._module.eval()
        for parameter in self._module.parameters():
            parameter.requires_grad_(False)
        self.size = (config.size, config.size) if config.size else size
        self._mean = torch.tensor(config.mean or mean).view(3, 1, 1)
        self._std = torch.tensor(config.std or std).view(3, 1, 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenNetwork:
        return self

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one (B, C, h, w) per layer that is asked for. Raises ConfigError where one is missing."""
        if self._mean.device != pixels.device:
            self._module.to(pixels.device)
            self._mean, self._std = self._mean.to(pixels.device), self._std.to(pixels.device)
        x = ((pixels.float() + 1) / 2 - self._mean) / self._std
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        try:
            maps = self._features(x, self.layers)
        except (IndexError, AssertionError) as error:
            raise ConfigError(f"`{self._who}.layers` {self.layers}: {self.name} has others ({error})") from None
        wrong = [tuple(found.shape) for found in maps if found.ndim != 4]
        if wrong:
            raise ConfigError(f"`{self._who}.network` {self.name}: gives {wrong[0]}, maps (B, C, h, w) are needed")
        return maps

    def channels(self, image_size: int) -> list[int]:
        """C of each layer, found by looking at an empty picture."""
        with torch.no_grad():
            return [found.shape[1] for found in self(torch.zeros(1, 3, image_size, image_size))]


Features = Callable[[Tensor, Sequence[int]], list[Tensor]]
Loaded = tuple[nn.Module, Features, tuple[int, int] | None, Three, Three]


def _load(name: str, who: str, normed: bool) -> Loaded:
    """Of any form -> the network, what asks it for layers, its fixed size, mean and std."""
    path = Path(name)
    try:
        if path.is_file():
            return _torchscript(path)
        folder = path if path.is_dir() else _from_hub(name)
        if (folder / "open_clip_config.json").is_file():
            return _of_open_clip(folder, normed)
        if (folder / "config.json").is_file():
            return _of_timm(folder, normed)
    except (DataError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"`{who}.network` {name}: {reason}; it must be {_FORMS}") from None
    raise ConfigError(f"`{who}.network` {name}: no open_clip_config.json and no config.json; it must be {_FORMS}")


def _from_hub(name: str) -> Path:
    if not is_hub_id(name):
        raise OSError("no such file or folder")
    return fetch_folder(name, ("*.json", "*.safetensors"))


def _torchscript(path: Path) -> Loaded:
    module = torch.jit.load(str(path), map_location="cpu")

    def features(x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        given = module(x)
        outputs = [given] if isinstance(given, Tensor) else list(given)
        return [outputs[layer] for layer in layers]

    return module, features, None, _HALF, _HALF


def _of_timm(folder: Path, normed: bool) -> Loaded:
    prepare_torchvision()
    import timm

    module: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    if not hasattr(module, "forward_intermediates"):
        raise ValueError(f"timm's {type(module).__name__} does not hand out its layers")

    def features(x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        asked = {"norm": normed, "intermediates_only": True, "output_fmt": "NCHW"}
        return [module.forward_intermediates(x, indices=[layer], **asked)[0] for layer in layers]

    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    return module, features, size, tuple(module.pretrained_cfg["mean"]), tuple(module.pretrained_cfg["std"])


def _of_open_clip(folder: Path, normed: bool) -> Loaded:
    module = _open_clip().create_model(f"local-dir:{folder}", require_pretrained=True).visual

    def features(x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        asked = {"normalize_intermediates": normed, "intermediates_only": True, "output_fmt": "NCHW"}
        return [module.forward_intermediates(x, indices=[n], **asked)["image_intermediates"][0] for n in layers]

    size = module.image_size
    size = (size, size) if isinstance(size, int) else tuple(size)
    cfg = module.preprocess_cfg
    return module, features, size, tuple(cfg["mean"]), tuple(cfg["std"])
