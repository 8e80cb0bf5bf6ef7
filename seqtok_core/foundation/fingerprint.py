"""Short names of content: equal content, equal name, on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def of_value(value: Any) -> str:
    """sha256 (hex) of a JSON value, independent of key order."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def of_model(config: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    """16 hex digits over a model's settings and tensors (name, type, shape, bytes): its identity."""
    import torch

    digest = hashlib.sha256(canonical_json(config).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())  # numpy has no bfloat16
    return digest.hexdigest()[:16]
