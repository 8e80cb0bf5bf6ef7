"""The bottlenecks by kind. A new one is a file beside this one, and its line in both places below: the type becomes
`Annotated[Annotated[A, Tag("a")] | Annotated[B, Tag("b")], by_kind("a")]`, as in encoders/build.py.
"""

from __future__ import annotations

from typing import Any

from seq_tokenizer.bottlenecks.base import Bottleneck
from seq_tokenizer.bottlenecks.rms import RmsBottleneck, RmsConfig
from seq_tokenizer.shape import TokenizerShape

BottleneckConfig = RmsConfig
BOTTLENECKS: dict[str, Any] = {"rms": RmsBottleneck}


def build_bottleneck(config: BottleneckConfig, shape: TokenizerShape) -> Bottleneck:
    """The bottleneck of `config.kind` with fresh weights."""
    return BOTTLENECKS[config.kind](config, shape)
