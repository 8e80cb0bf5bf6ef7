"""How latents are drawn: the one owner of every default."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field

from ar_model.heads.build import HeadSampleConfig
from seqtok_core.foundation.config import overlay


class SampleConfig(HeadSampleConfig):
    """What holds for every head; beside it each head's own part, under its kind."""

    guidance: float = Field(3.0, ge=0)  # 1 = follow the prompt as learnt, more = insist on it
    schedule: Literal["constant", "linear"] = "constant"  # linear: guidance rises from 1 at the first token
    temperature: float = Field(1.0, ge=0)  # scale of the initial noise

    @property
    def guided(self) -> bool:
        """Whether the model must be read without the prompt, too."""
        return self.guidance != 1.0

    def changed(self, **changes: Any) -> Self:
        """With other values, in a head's part too. Raises ConfigError that names the nearest key."""
        return type(self).parse(overlay(self.model_dump(), changes), "sample") if changes else self
