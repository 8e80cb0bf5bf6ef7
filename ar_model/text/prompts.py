"""Prompts as the model reads them: in the words of its captions, as ids of one length."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from data_pipelines.captions.tokenizer import PAD, CaptionTokenizer
from seqtok_core.foundation.errors import ConfigError

_SHOWN = 8  # unknown words in a warning


def as_prompts(given: str | Sequence[str]) -> list[str]:
    """A text is one prompt, not a prompt a letter. Raises ConfigError for what is no text."""
    prompts = [given] if isinstance(given, str) else given
    if not isinstance(prompts, Iterable):
        raise ConfigError(f"{given!r:.80}: prompts are a text or a list of texts")
    prompts = list(prompts)
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ConfigError(f"{prompt!r:.80}: a prompt is a text, and several are a list of texts")
    return prompts


def unknown_words(captions: CaptionTokenizer, prompts: Sequence[str]) -> str | None:
    """The warning that names the words which no caption of the training had; None where all are known."""
    words = (word for prompt in prompts for word in captions.in_known_words(prompt)[1])
    unknown = list(dict.fromkeys(words))
    if not unknown:
        return None
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    named = ", ".join(map(repr, unknown[:_SHOWN])) + more
    return f"no caption of the training has {named}; what is drawn for such words means nothing"


def prompt_ids(captions: CaptionTokenizer, prompts: Sequence[str], limit: int) -> list[list[int]]:
    """Rows of equal length, at least 1, padded. Raises ConfigError for a prompt of more than `limit` tokens.

    Case, width and punctuation are brought to those of the captions that were learned from. Of a word that none of
    them has a model knows nothing, and draws something else: one warning names all such words.
    """
    strangers = unknown_words(captions, prompts)
    if strangers is not None:
        warnings.warn(strangers, stacklevel=4)
    return text_ids(captions, [captions.in_known_words(prompt)[0] for prompt in prompts], limit)


def text_ids(captions: CaptionTokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
    """The same for texts as they stand, as a loader reads them."""
    rows = [captions.encode(text) for text in texts]
    for text, ids in zip(texts, rows, strict=True):
        if len(ids) > limit:
            raise ConfigError(f"text of {len(ids)} tokens, at most {limit} are read: {text[:80]!r}")
    return padded(rows)


def is_read(captions: CaptionTokenizer, text: str, limit: int) -> bool:
    """Whether a text is no longer than what is read, as a prompt and as it stands."""
    return all(len(captions.encode(each)) <= limit for each in (text, captions.in_known_words(text)[0]))


def padded(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """To the length of the longest, at least 1."""
    longest = max((len(ids) for ids in rows), default=1) or 1
    return [[*ids, *[PAD] * (longest - len(ids))] for ids in rows]
