"""The sizes of the causal Transformer. Widths are in channels."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from seqtok_core.foundation.config import Config


class TransformerShape(Config):
    width: int = Field(192, ge=8)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    max_text_tokens: int = Field(64, ge=1)  # of one caption; longer prompts are refused

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} must be a multiple of 2 * heads={2 * self.heads}")
        return self
