"""The models at work: pictures, latents and prompts in; pictures, words and latents out. Nothing is kept of a call.

Shapes: K latents of D channels, k <= K, S the side of a picture in pixels, C captions, E text-image space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ar_model import SampleConfig, SeqGenerator
from ar_model.text.prompts import unknown_words
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.pictures.decode import DecodeError, decode_picture
from data_pipelines.samples import to_model
from data_pipelines.scenes import make_scene, render
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.explorer.found import Explored
from seqtok.explorer.held_out import HeldOut
from seqtok.pictures.reconstruct import exchanged
from seqtok.pictures.sample import load_pair
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.training import World

_NEAREST = 5  # captions that are named
_SCENES_SEED = 0  # of drawn scenes: those of the demo


@dataclass(frozen=True)
class Opened:
    """A picture as the tokenizer reads it."""

    picture: Tensor  # (3, S, S) uint8
    latents: Tensor  # (K, D)
    looks: Tensor | None  # (K, rows, columns), each sums to 1; None where tokens do not stand for queries
    captions: tuple[str, ...] = ()  # that came with it
    notes: tuple[str, ...] = ()  # what was done beyond cropping and shrinking


class Studio:
    """`words`: the captions model of the tokenizer's text side, None where it has none."""

    def __init__(
        self,
        tokenizer: SeqTokenizer,
        generator: SeqGenerator | None = None,
        words: CaptionTokenizer | None = None,
        held_out: HeldOut | None = None,
    ) -> None:
        self.tokenizer, self.generator, self.words, self.held_out = tokenizer, generator, words, held_out
        self.size, self.length = tokenizer.config.image_size, tokenizer.config.num_latents
        self.dim = tokenizer.config.latent_dim

    @classmethod
    def load(cls, parts: Explored) -> Studio:
        """The models of a run, on the GPU where there is one. Raises what loading raises; what of the data cannot be
        read is a further note of `parts`."""
        if parts.generator is None:
            generator = None
            tokenizer = SeqTokenizer.from_pretrained(parts.tokenizer).to(World.from_environment().device)
        else:
            generator, tokenizer = load_pair(parts.generator, parts.tokenizer)
        words = None
        if tokenizer.text is not None:
            words = CaptionTokenizer.load(model_folder.captions_of(model_folder.find_model_folder(parts.tokenizer)))
        held_out = None
        if parts.data is not None:
            try:
                held_out = HeldOut(parts.data)
            except DataError as error:
                parts.notes.append(str(error))
        return cls(tokenizer, generator, words, held_out)

    def about(self) -> dict[str, Any]:
        """What can be asked, for the page."""
        generator = self.generator
        defaults = SampleConfig()
        return {
            "tokens": self.length,
            "channels": self.dim,
            "size": self.size,
            "retrieves": self.words is not None,
            "captions": len(self.captions),
            "held_out": None if self.held_out is None else {"count": len(self.held_out), "split": self.held_out.split},
            "generator": generator
            and {
                "guidance": defaults.guidance,
                "temperature": defaults.temperature,
                "captions": generator.writes,
                "captions_from_prefixes": generator.writes and generator.captions_from_prefixes,
                "caption_levels": generator.caption_levels,
            },
        }

    @property
    def captions(self) -> list[str]:
        return self.held_out.captions if self.held_out is not None and self.words is not None else []

    # Pictures in.

    def open(self, data: bytes, captions: Sequence[str] = ()) -> Opened:
        """Any picture file, cropped and resized as in training. Raises DataError for what cannot be read in full."""
        try:
            found = decode_picture(data, self.size)
        except DecodeError as error:
            raise DataError(f"not a picture that can be read: {error}") from None
        return self._see(torch.from_numpy(found.pixels.copy()).permute(2, 0, 1), captions, found.notes)

    def scene(self, number: int) -> Opened:
        """A drawn scene of the held-out split."""
        if not 0 <= number < 2**31:
            raise ConfigError(f"scene {number}: choose from 0 to {2**31 - 1}")
        scene = make_scene(_SCENES_SEED, number, "test")
        return self._see(torch.from_numpy(render(scene, self.size).copy()).permute(2, 0, 1), scene.captions)

    def example(self, number: int) -> Opened:
        """A held-out picture of the model's own data."""
        if self.held_out is None:
            raise DataError("there is no held-out data beside this model; open a picture of your own")
        return self.open(*self.held_out.picture(number))

    def _see(self, picture: Tensor, captions: Sequence[str] = (), notes: Sequence[str] = ()) -> Opened:
        latents = encode_all(self.tokenizer, picture[None])[0]
        return Opened(picture, latents, self._looks(picture), tuple(captions), tuple(notes))

    def _looks(self, picture: Tensor) -> Tensor | None:
        if self.tokenizer.bottleneck.groups:  # it makes tokens of all that the encoder gives
            return None
        pixels = to_model(picture[None].to(self.tokenizer.device)).to(self.tokenizer.dtype)
        side = self.size // self.tokenizer.config.patch_size
        return self.tokenizer.encoder.looks(pixels)[0].unflatten(1, (side, side)).cpu()

    # Pictures out.

    def decode(self, latents: Tensor, k: int) -> Tensor:
        """latents (n, D), k <= n -> (3, S, S) uint8, from the first k tokens."""
        return decode_all(self.tokenizer, latents[None], self._require(k, len(latents)))[0]

    def swap(self, first: Tensor, second: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Two (K, D) -> each decoded with the first k tokens of the other."""
        if len(first) != self.length or len(second) != self.length:
            raise ConfigError(f"swapping takes all {self.length} tokens of both pictures")
        mixed = exchanged(torch.stack([first, second]), self._require(k, self.length))
        one, other = decode_all(self.tokenizer, mixed, self.length)
        return one, other

    def draw(
        self,
        prompt: str | None,
        kept: Tensor,
        seed: int,
        config: SampleConfig,
        on_token: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """kept (k, D) -> (K, D): what follows the kept tokens. `on_token` is handed all tokens so far (n, D)."""
        generator = self._require_generator()
        told = None if on_token is None else lambda latents: on_token(latents[0])
        prompts = None if prompt is None else [prompt]
        return generator.complete(kept[None], prompts, config, seed=seed, on_token=told)[0].cpu()

    def warning(self, prompt: str) -> str | None:
        """Which words of a prompt mean nothing to the model. Raises ConfigError where it reads fewer."""
        generator = self._require_generator()
        generator.encode_prompts(prompt)
        return unknown_words(generator.captions, [prompt])

    # Words out.

    def says(self, latents: Tensor, k: int, captions: Sequence[str] | None = None) -> dict[str, Any]:
        """What the first k tokens say: `written` by the tokenizer, `captioned` by the sequence model, and the `nearest`
        captions with their cosines; each None where the model cannot."""
        kept = latents[None, : self._require(k, len(latents), least=1)]
        return {
            "written": self._written(kept),
            "captioned": self._captioned(kept),
            "nearest": self._nearest(kept, captions),
        }

    def caption(self, latents: Tensor, k: int, level: int | None, candidates: int, seed: int) -> str:
        kept = latents[None, : self._require(k, len(latents), least=1)]
        return self._require_generator().caption(kept, level=level, candidates=candidates, seed=seed)[0]

    def _written(self, kept: Tensor) -> str | None:
        writer = self.tokenizer.writer
        if writer is None or writer.config.level_starts is None or self.words is None:
            return None
        return self.words.decode(self.tokenizer.write(kept)[0])

    def _captioned(self, kept: Tensor) -> str | None:
        generator = self.generator
        if generator is None or not generator.writes:
            return None
        if kept.shape[1] < self.length and not generator.captions_from_prefixes:
            return None
        return generator.caption(kept)[0]

    @torch.no_grad()
    def _nearest(self, kept: Tensor, captions: Sequence[str] | None) -> list[dict[str, Any]] | None:
        choices = self.captions if captions is None else list(dict.fromkeys(captions))
        if self.words is None or not choices:
            return None
        texts = self._known_texts if captions is None else self._texts(choices)
        said = self.tokenizer.prefix_embeddings(kept.to(self.tokenizer.device, self.tokenizer.dtype))[0, -1]
        best = (texts @ said).float().topk(min(_NEAREST, len(choices)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [{"caption": choices[i], "score": score} for i, score in pairs]

    @cached_property
    def _known_texts(self) -> Tensor:
        return self._texts(self.captions)

    @torch.no_grad()
    def _texts(self, captions: Sequence[str]) -> Tensor:
        """-> (C, E), each for itself: the space of a text does not depend on its neighbours."""
        assert self.words is not None
        text = self.tokenizer.config.text
        limit = text.context - 1 if text is not None else 0
        ids, _, _ = self.words.encode_batch([[caption] for caption in captions], 1, limit)
        parts = [self.tokenizer.encode_text(part[:, 0].to(self.tokenizer.device)) for part in ids.split(256)]
        return torch.cat(parts)

    def _require(self, k: int, most: int, least: int = 0) -> int:
        if not least <= k <= most:
            raise ConfigError(f"k={k}: choose from {least} to {most} tokens")
        return k

    def _require_generator(self) -> SeqGenerator:
        if self.generator is None:
            raise ConfigError("nothing can be drawn: there is no sequence model here; name one with --generator")
        return self.generator
