"""Captions to token ids and back: sentencepiece with fixed special ids, the same model from the same text.

Shapes: B images, L caption levels (coarse to fine), T text tokens.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from data_pipelines.captions.clean import caption_identity, normalise_caption
from data_pipelines.captions.words import common_words, in_known_words, with_words, words_in
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import atomic_write, refuse_lfs_pointer

PAD, UNK, BOS, EOS, BOI, EOI = range(6)
NO_CAPTION = -1  # caption id where an image has no caption at a level
_SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<boi>", "<eoi>")
SENTENCES = 2_000_000  # captions learned from; sentencepiece holds its whole text in memory


class CaptionTokenizer:
    """Text to ids and back. Immutable but for the count of cut captions, so that threads and processes share it."""

    def __init__(self, model: bytes) -> None:
        """`model` is the content of a sentencepiece model file. Raises DataError when it is not ours."""
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            found = tuple(self._processor.IdToPiece(i) for i in range(len(_SPECIAL)))
            self._words = words_in(model)
        except (RuntimeError, IndexError, ValueError) as error:
            raise DataError(f"captions model: not a sentencepiece model ({error})") from None
        if found != _SPECIAL:
            raise DataError(f"captions model: ids 0-5 must be {_SPECIAL}, not {found}; train one with us")
        self._cuts = itertools.count(1)
        self.cut_captions = 0  # captions cut at max_tokens by encode_batch, in this process

    @classmethod
    def train(
        cls, captions: Iterable[str], path: Path | None, vocab_size: int, input_sentence_size: int = SENTENCES
    ) -> Self:
        """Learn a BPE vocabulary of at most `vocab_size` pieces and write it to `path` if one is given.

        Small texts yield fewer pieces; 256 pieces are single bytes, so any text can be encoded. The model
        is a pure function of the bag of captions. `captions` may be a stream of any length: of more than
        `input_sentence_size` a seeded sample is learned from, and no more than that is ever held in memory.
        BPE and not unigram: unigram takes its candidates from what repeats among *distinct* words, so that on
        drawn scenes (60 distinct words) "small" fell apart, and captions had 30 tokens instead of 13.
        """
        lines = sorted(line for line in _sample(captions, input_sentence_size) if line)
        if not lines:
            raise DataError("captions model: there is no text to learn from")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                byte_fallback=True,
                normalization_rule_name="identity",
                num_threads=1,  # another number of threads gives another model
                pad_id=PAD,
                unk_id=UNK,
                bos_id=BOS,
                eos_id=EOS,
                pad_piece="<pad>",
                unk_piece="<unk>",
                bos_piece="<bos>",
                eos_piece="<eos>",
                control_symbols=["<boi>", "<eoi>"],
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ConfigError(f"vocab_size={vocab_size}: {_explain(error)}") from None
        tokenizer = cls(with_words(model.getvalue(), common_words(lines)))
        if path is not None:
            tokenizer.save(path)
        return tokenizer

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a model file. Raises DataError naming the path."""
        refuse_lfs_pointer(path)
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            hint = "`train_vocabulary()` learns one from a data set"
            raise DataError(f"{path}: cannot be read ({error.strerror}); {hint}") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        with atomic_write(Path(path)) as stream:
            stream.write(self._model)

    @property
    def vocab_size(self) -> int:
        return int(self._processor.GetPieceSize())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self._model).hexdigest()

    def in_known_words(self, text: str) -> tuple[str, list[str]]:
        """-> the normalised text in the words of the captions that were learned from, where another case or width of
        one stands, and the words that are none of them. A model without words knows of no strangers."""
        clean = normalise_caption(text)
        return (clean, []) if self._words is None else in_known_words(clean, self._words)

    def encode(self, text: str) -> list[int]:
        """Ids of the content, without <bos> and <eos>. Special words in the text are plain text."""
        return self._processor.EncodeAsIds(normalise_caption(text))

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """The normalised text of ids; special ids are left out. Inverse of `encode` on normalised text."""
        numbers = ids.tolist() if isinstance(ids, Tensor) else [int(i) for i in ids]
        text = self._processor.DecodeIds([i for i in numbers if i == UNK or i >= len(_SPECIAL)])
        return normalise_caption(text, len(text))

    def encode_batch(
        self, captions: Sequence[Sequence[str]], levels: int | None = None, max_tokens: int = 48
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Caption pyramids of B images -> text_ids (B, L, T), level_mask (B, L), caption_ids (B, L).

        T is `max_tokens`; longer captions are cut, counted in `cut_captions` and warned of once. L is
        `levels` or the longest pyramid here. An image with more captions than levels keeps its coarsest L-1
        and its finest. caption_ids are equal where the normalised captions are; -1 where there is none.
        """
        if levels is None:
            levels = max((len(pyramid) for pyramid in captions), default=1) or 1
        # numpy here: setting one row of a tensor takes longer than encoding its caption
        text_ids = np.full((len(captions), levels, max_tokens), PAD, dtype=np.int64)
        level_mask = np.zeros((len(captions), levels), dtype=np.bool_)
        caption_ids = np.full((len(captions), levels), NO_CAPTION, dtype=np.int64)
        for row, pyramid in enumerate(captions):
            for level, text in enumerate(pick_levels(pyramid, levels)):
                clean = normalise_caption(text)
                if not clean:
                    continue
                ids = self._fit(self._processor.EncodeAsIds(clean), max_tokens, clean)
                text_ids[row, level, : len(ids)] = ids
                level_mask[row, level] = True
                caption_ids[row, level] = caption_identity(clean)
        return torch.from_numpy(text_ids), torch.from_numpy(level_mask), torch.from_numpy(caption_ids)

    def _fit(self, ids: list[int], max_tokens: int, text: str) -> list[int]:
        if len(ids) <= max_tokens:
            return ids
        number = next(self._cuts)  # counted in one step, since threads may share a tokenizer
        self.cut_captions = max(number, self.cut_captions)
        if number == 1:
            warnings.warn(
                f"a caption has {len(ids)} tokens and is cut at max_tokens={max_tokens}: {text[:120]!r}; "
                "further cuts are counted, not shown",
                stacklevel=3,
            )
        return ids[:max_tokens]

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._model,)


def pick_levels(pyramid: Sequence[str], levels: int) -> list[str]:
    """At most `levels` captions: all of them, or the coarsest `levels` - 1 and the finest."""
    return list(pyramid) if len(pyramid) <= levels else [*pyramid[: levels - 1], pyramid[-1]]


def _explain(error: RuntimeError) -> str:
    least = re.search(r"required_chars\.\s+\d+ vs (\d+)", str(error))
    if least is None:
        return f"sentencepiece cannot train on these captions ({error})"
    return f"too small; special ids, bytes and the characters of these captions alone need {least[1]}"


def _sample(captions: Iterable[str], limit: int) -> list[str]:
    """All captions, or a seeded reservoir sample of them (Vitter 1985, algorithm R)."""
    rng = random.Random(0)
    kept: list[str] = []
    for number, text in enumerate(captions):
        if number < limit:
            kept.append(normalise_caption(text))
        elif (place := rng.randrange(number + 1)) < limit:
            kept[place] = normalise_caption(text)
    return kept
