"""The decoders by kind. A new one is a file beside this one, and its line in both places below: the type becomes
`Annotated[Annotated[A, Tag("a")] | Annotated[B, Tag("b")], by_kind("a")]`, as in encoders/build.py.
"""

from __future__ import annotations

from typing import Any

from seq_tokenizer.decoders.base import Decoder
from seq_tokenizer.decoders.pixel import PixelConfig, PixelDecoder
from seq_tokenizer.shape import TokenizerShape

DecoderConfig = PixelConfig
DECODERS: dict[str, Any] = {"pixel": PixelDecoder}


def build_decoder(config: DecoderConfig, shape: TokenizerShape) -> Decoder:
    """The decoder of `config.kind` with fresh weights."""
    return DECODERS[config.kind](config, shape)
