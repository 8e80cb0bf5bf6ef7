"""The decoders by kind. A new one is a file beside this one, and its line in both places below."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Tag

from seq_tokenizer.decoders.base import Decoder
from seq_tokenizer.decoders.flow import FlowDecoder, FlowDecoderConfig
from seq_tokenizer.decoders.lossless import LaidBackConfig, LosslessDecoder
from seq_tokenizer.decoders.pixel import PixelConfig, PixelDecoder
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import by_kind

DecoderConfig = Annotated[
    Annotated[PixelConfig, Tag("pixel")]
    | Annotated[FlowDecoderConfig, Tag("flow")]
    | Annotated[LaidBackConfig, Tag("lossless")],
    by_kind("pixel"),
]
DECODERS: dict[str, Any] = {"pixel": PixelDecoder, "flow": FlowDecoder, "lossless": LosslessDecoder}


def build_decoder(config: DecoderConfig, shape: TokenizerShape) -> Decoder:
    """The decoder of `config.kind` with fresh weights."""
    return DECODERS[config.kind](config, shape)
