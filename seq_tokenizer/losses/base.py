"""A term of the objective, and what all terms see of a batch: pictures are encoded and decoded once for all of them.

Shapes: B images, K latents of D channels, N patches, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from data_pipelines.samples import ImageTextBatch
from seq_tokenizer.tokenizer import SeqTokenizer
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws

T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """A batch on its way through the tokenizer. Every image is decoded twice, from a drawn prefix and from all.

    Of a generative decoder there are no pictures, which would cost many steps, but its own loss.
    """

    batch: ImageTextBatch
    pixels: Tensor  # (B, 3, H, W) in [-1, 1]
    latents: Tensor  # (B, K, D), as they came out of the bottleneck
    prefix: Tensor  # (B,) int64, the drawn length of each image's short decoding
    pictures: Tensor | None  # (2 B, 3, H, W) float32: from the prefixes, then from all latents
    draws: Draws
    tokenizer: SeqTokenizer
    decoder_loss: Tensor | None = None  # (2 B,) float32, of a generative decoder, in the same order
    inside: Mapping[str, Tensor] = field(default_factory=dict)  # states of the parts that a term's `reads` names
    _made: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def decoded(self) -> Tensor:
        """(2 B, 3, H, W): the pictures, where a term needs them."""
        assert self.pictures is not None, "a term of decoded pictures says so in `needs_pictures`"
        return self.pictures

    @property
    def short(self) -> Tensor:
        """(B, 3, H, W) decoded from the drawn prefixes."""
        return self.decoded[: len(self.pixels)]

    @property
    def whole(self) -> Tensor:
        """(B, 3, H, W) decoded from all latents."""
        return self.decoded[len(self.pixels) :]

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What several terms need of this batch, made by the first of them that asks for `key`."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def state(self, name: str, who: str) -> Tensor:
        """A state that `who` reads. Raises ConfigError where this tokenizer's part has none of that name."""
        if name not in self.inside:
            config = self.tokenizer.config
            raise ConfigError(
                f"`{who}` needs {name}, which encoder {config.encoder.kind} of {config.encoder_layers} layers and "
                f"decoder {config.decoder.kind} of {config.decoder_layers} do not hand out; take parts that do (of two "
                f"layers or more), or set `{who}` to null"
            )
        return self.inside[name]


class Term(nn.Module, ABC):
    """Owns its weight, its settings and, where it has some, its networks. Made from its settings and the sizes of the
    tokenizer."""

    needs_text: ClassVar[bool] = False  # left out where the tokenizer has no text tower
    reads: ClassVar[frozenset[str]] = frozenset()  # "encoder", "decoder": parts whose states it wants to see
    needs_pictures: ClassVar[bool] = False  # left out where the decoder is generative
    needs_decoder_loss: ClassVar[bool] = False  # left out where it is not

    @abstractmethod
    def forward(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """-> what is added to the objective, its weight in it, and the scalars to log by name."""

    def own_rates(self) -> dict[str, dict[str, Any]]:
        """Modules of this term with rates of their own, by name."""
        return {}
