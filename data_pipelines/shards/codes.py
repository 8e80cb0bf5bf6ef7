"""What the codes of a picture look like, and whether these are such: written, read and verified by one rule.

Shapes: K tokens, Q codes per token, V entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from seqtok_core.foundation.errors import DataError

CODES_ENDING = ".codes.npy"  # of the file beside an array of latents


@dataclass(frozen=True)
class CodeLayout:
    """Codes of a picture: integers from 0 to V - 1, (K,), or (K, Q) where a token is Q > 1 of them."""

    length: int  # K
    size: int  # V
    per_token: int = 1  # Q

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,) if self.per_token == 1 else (self.length, self.per_token)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], where: str = "latent spec") -> CodeLayout | None:
        """From the JSON of a LatentSpec; None where its tokenizer has no codebook. Raises DataError."""
        if spec.get("codebook_size") is None:
            return None
        try:
            return cls(int(spec["length"]), int(spec["codebook_size"]), int(spec.get("codes_per_token", 1)))
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: the size of the codebook is damaged") from None

    def check(self, codes: NDArray[Any], place: str) -> None:
        """Raises DataError naming the place unless these are the codes of one picture."""
        if codes.shape != self.shape or codes.dtype.kind not in "iu":
            raise DataError(f"{place}: codes are {codes.dtype} {codes.shape} instead of integers {self.shape}")
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < self.size:
            raise DataError(
                f"{place}: codes from {codes.min()} to {codes.max()}, the codebook has entries 0 to {self.size - 1}"
            )

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "entries": self.size}
