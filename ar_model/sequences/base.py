"""What a sequence is: one way to put text and latents into a causal Transformer, to train on them and to draw them.

Shapes: B samples, T text tokens, K latents of D channels, N slots, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor, nn

from ar_model.backbone import Backbone
from ar_model.heads.base import Head
from ar_model.sampling import SampleConfig
from ar_model.sequences.cache import ReadOnce
from ar_model.sequences.layout import CaptionSlots, caption_slots, writing_rows
from ar_model.sequences.reading import ImageSlots
from ar_model.sequences.words import word_model
from ar_model.text.writing import WordModel, guided
from data_pipelines.captions.tokenizer import EOI, PAD
from seqtok_core.foundation.config import Config
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws


def trim(text_ids: Tensor) -> Tensor:
    """(B, T) -> (B, longest): drop the columns that are padding in every row (at least one stays)."""
    longest = int((text_ids != PAD).sum(1).max().clamp(min=1))
    return text_ids[:, :longest]


@dataclass(frozen=True)
class Captions:
    """The second pass: what R of the B samples write."""

    x: Tensor  # (R, T + 1, W)
    slots: CaptionSlots

    def states(self, backbone: Backbone, first: ReadOnce) -> Tensor:
        """`first` is what the first pass kept -> (R, T + 1, W)."""
        slots = self.slots
        front = first.behind(slots.rows, detached=backbone.writer is not None)
        return backbone.writing(self.x, slots.positions, slots.mask, front)

    def blind_to(self, further: int) -> Captions:
        """The same behind a first pass of so many slots more."""
        own = self.x.shape[1]
        mask = self.slots.mask
        unseen = mask.new_zeros(*mask.shape[:3], further)
        mask = torch.cat([mask[..., :-own], unseen, mask[..., -own:]], -1)
        return replace(self, slots=replace(self.slots, mask=mask))


@dataclass(frozen=True)
class Slots:
    """What the Transformer reads, and which of its states lead to what."""

    x: Tensor  # (B, N, W)
    positions: Tensor  # (B, N) int64
    mask: Tensor  # (B, 1, N, N) bool, who sees whom
    latents: slice  # of the slots, whose states lead to z_1 ... z_K
    prompt: tuple[slice, Tensor]  # slots, and target ids (B, n), PAD where none is asked
    captions: Captions | None = None  # what is written after the image; None where nobody writes
    loss: Callable[[Tensor], Tensor] | None = None  # h (B, N, W) -> (B, K) float32, where the sequence `denoises`


@dataclass(frozen=True)
class Roles:
    """What each of B samples does in a training step."""

    prompted: Tensor  # (B,) bool, has its text before the image
    writes: Tensor | None = None  # (B,) bool, writes its text after the image; None: nobody does
    level: Tensor | None = None  # (B,) int64, of the text, 0 coarse; -1: there is none
    # (B,) int64, so many of the first latents are not told, which is what guidance by a prefix compares with
    hidden: Tensor | None = None
    told: Tensor | None = None  # (B,) int64, the text is written from so many of the first latents; None: from all
    meant: Tensor | None = None  # (B,) bool, its prompt is one token that is no word
    meaning: Tensor | None = None  # (B, W), that token

    def embed_prompts(self, backbone: Backbone, ids: Tensor) -> Tensor:
        """(B, P), as `prompt_block` lays them out -> (B, P, W)."""
        words = backbone.embed_text(ids)
        if self.meant is None or self.meaning is None:
            return words
        place = torch.arange(ids.shape[1], device=ids.device) == ids.shape[1] - 2  # before <boi>
        return torch.where(self.meant[:, None, None] & place[:, None], self.meaning[:, None].to(words.dtype), words)


class CaptionSettings(Config):
    """What every sequence can be taught of captions."""

    caption_levels: int = Field(0, ge=0)  # levels of captions that can be asked for; 0: the model chooses its words
    # Share of captions that are written without the picture: what guidance of captions compares with.
    caption_dropout: float = Field(0.0, ge=0, le=1)


@dataclass(frozen=True)
class Weak:
    """A weaker model that guidance holds drawings against."""

    backbone: Backbone
    head: Head


class SequenceVariant(nn.Module, ABC):
    """Owns slots, mask, positions, targets and the order of sampling. Weights of its own lie in submodules."""

    prefix_dropout: float = 0.0  # share of samples without a prompt whose first latents are hidden, see Roles
    caption_prefixes: float = 0.0  # share of written texts that see the first latents only
    takes_weak: bool = False  # whether `draw` knows one argument more, weak: Weak | None
    takes_meaning: bool = False  # whether a prompt can be a token that is no word
    denoises: bool = False  # the Transformer itself leads noise to latents: there is no head
    groups: tuple[int, ...] = ()  # latents that are drawn at once, independently of each other; (): no two are

    def __init__(self, settings: CaptionSettings, width: int) -> None:
        super().__init__()
        levels = settings.caption_levels
        self.caption_levels, self.caption_dropout = levels, settings.caption_dropout
        self.level_in = nn.Embedding(levels, width) if levels else None  # tells <eoi> the level of what follows
        self.MUON_EXCLUDED = ("level_in.weight",) if levels else ()

    def captions(
        self, backbone: Backbone, text_ids: Tensor, roles: Roles, before: Tensor, latents: Tensor, length: int
    ) -> Captions | None:
        """The second pass. before (B, P) bool, which slots in front of the image it may see, latents (B, n) bool,
        which of the image's; where a sample is told some latents only, slot i is z_i's."""
        if roles.writes is None:
            return None
        if roles.told is not None:
            latents = latents & (torch.arange(latents.shape[1], device=latents.device) < roles.told[:, None])
        slots = caption_slots(text_ids, *writing_rows(roles.writes), torch.cat([before, latents], 1), length)
        level = None if roles.level is None else roles.level[slots.rows]
        x = backbone.writing.embed_text(slots.ids)
        return Captions(torch.cat([self._ask(x[:, :1], level), x[:, 1:]], 1), slots)

    def end_of_image(self, backbone: Backbone, level: Tensor) -> Tensor:
        """(B, 1, W): <eoi> that asks for captions of level (B,)."""
        return self._ask(backbone.writing.embed_text(torch.full_like(level, EOI)[:, None]), level)

    def _ask(self, end: Tensor, level: Tensor | None) -> Tensor:
        """end (B, 1, W), <eoi> -> the same, told the level (B,)."""
        if self.level_in is None or level is None:
            return end
        return end + self.level_in(level.clamp(min=0))[:, None].to(end.dtype)

    @abstractmethod
    def arrange(
        self, backbone: Backbone, z: Tensor, noise: Tensor | None, text_ids: Tensor, roles: Roles, draws: Draws
    ) -> Slots:
        """For training. z (B, K, D) standardised; noise (B, K, D) is added where latents are read; text_ids (B, T)
        packed to the left."""

    @abstractmethod
    def draw(
        self,
        backbone: Backbone,
        head: Head,
        text_ids: Tensor,
        draws: Draws,
        config: SampleConfig,
        length: int,
        tokens: int,
        given: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """text_ids (B, T) -> one after the other the first `tokens` of K = `length` standardised latents, each (B, D)
        float32; the first k are `given` (B, k, D), k <= tokens, where that is set. A variant that `takes_weak` is told
        by `weak` who guides, where it is not what is drawn without the prompt; one with `prefix_dropout` whether it
        `hides` the given latents from what guides, too."""

    @abstractmethod
    def read(self, backbone: Backbone, z: Tensor) -> ImageSlots:
        """z (B, k, D), the first k standardised latents, or none -> how they are read where there is no prompt."""

    @torch.inference_mode()
    def writer(self, backbone: Backbone, z: Tensor, level: int, length: int, limit: int) -> WordModel:
        """z (B, k, D), the first k of K = `length` standardised latents, or none -> what writes captions of `level` of
        at most `limit` tokens."""
        end = self.end_of_image(backbone, torch.full((len(z),), level, device=z.device))
        return word_model(backbone, self.read(backbone, z), end, length, limit)

    def guided_writer(
        self, backbone: Backbone, z: Tensor, level: int, length: int, limit: int, guidance: float
    ) -> WordModel:
        """`writer`, which for guidance other than 1 is held against itself without a picture. Raises ConfigError where
        it has not learnt to write without."""
        found = self.writer(backbone, z, level, length, limit)
        if guidance == 1.0:
            return found
        if not self.caption_dropout:
            raise ConfigError(
                f"guidance={guidance:g} of captions: this model has not learnt to write without a picture; "
                "train one with caption_dropout above 0"
            )
        return guided(found, self.writer(backbone, z[:, :0], level, length, limit), guidance)
