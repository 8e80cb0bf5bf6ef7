"""Two libraries need a word before they are imported: torchvision and webdataset.

torchvision: its wheel's compiled part does not load beside a CPU-only torch, and `import torchvision` (and
with it open_clip, timm, torchmetrics) stops at "operator torchvision::nms does not exist". Declaring the two
operators, without an implementation, lets the import pass. Where the compiled part loads, nothing is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Any

_library: list[Any] = []  # keeps the declared operators alive for the life of the process


def prepare_torchvision() -> str:
    """Call before the first import of open_clip, timm or torchmetrics. Returns "native" or "declared"."""
    if _library:
        return "declared"
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed")
    for compiled in sorted(Path(spec.origin).parent.glob("_C*.so")):
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(compiled))
            return "native"
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.append(library)
    return "declared"


def import_webdataset() -> Any:
    """webdataset in secure mode: no pickle is decoded and no shell command is run from a shard's name."""
    os.environ.setdefault("WDS_SECURE", "1")
    import webdataset

    webdataset.utils.enforce_security = True
    return webdataset
