"""What a caption is before it becomes tokens: one clean form, and one number per distinct text."""

from __future__ import annotations

import hashlib
import html
import unicodedata
from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from seqtok_core.foundation.config import Config

MAX_CHARACTERS = 1000  # longer captions are cut here; sentencepiece skips lines beyond 4192 bytes in silence
_SPACE_MARK = "\u2581"  # sentencepiece writes a space as this character, so the two cannot be told apart


class CaptionRules(Config):
    """How the captions of a sample are cleaned before they are written."""

    max_characters: int = Field(MAX_CHARACTERS, ge=1, le=MAX_CHARACTERS, description="Longer captions are cut.")
    min_characters: int = Field(1, ge=1, description="Shorter captions are left out.")
    unescape_html: bool = Field(False, description="Read &amp; as &.")


def clean_captions(captions: Sequence[str], rules: CaptionRules) -> tuple[list[str], Counter[str]]:
    """Levels as they are written, coarse to fine, and what was done to them: note -> count.

    Each is normalised, cut or left out by its length; of equal neighbours one stays.
    """
    notes: Counter[str] = Counter()
    kept: list[str] = []
    for text in captions:
        whole = html.unescape(text) if rules.unescape_html else text
        clean = normalise_caption(whole, rules.max_characters)
        if not clean:
            notes["empty captions left out"] += 1
            continue
        if len(clean) < rules.min_characters:
            notes["short captions left out"] += 1
            continue
        notes["captions shortened"] += len(whole) > rules.max_characters
        notes["captions cleaned"] += clean != text[: rules.max_characters].rstrip()
        if kept and kept[-1] == clean:
            notes["equal captions merged"] += 1
            continue
        kept.append(clean)
    return kept, +notes


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
