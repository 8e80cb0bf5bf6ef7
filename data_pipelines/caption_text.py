"""What a caption is before it becomes tokens: one clean form, and one number per distinct text."""

from __future__ import annotations

import hashlib
import unicodedata

MAX_CHARACTERS = 1000  # longer captions are cut here; sentencepiece skips lines beyond 4192 bytes in silence
_SPACE_MARK = "\u2581"  # sentencepiece writes a space as this character, so the two cannot be told apart


def normalise_caption(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """NFC, without control characters and lone surrogates, white space collapsed, at most `max_characters`.

    Idempotent. Two captions are equal when their normalised forms are.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(_clean(character) for character in text)
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())[:max_characters].rstrip()


def caption_identity(normalised: str) -> int:
    """63 bits of sha256 of a normalised caption: equal texts, equal numbers, on every machine."""
    return int.from_bytes(hashlib.sha256(normalised.encode()).digest()[:8], "big") >> 1


def _clean(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":  # a lone surrogate cannot be written as UTF-8
        return ""
    return " " if category == "Cc" or character == _SPACE_MARK else character
