"""The words that captions are made of, kept inside the captions model: a prompt with other words can be told.

sentencepiece reads its file as a protocol buffer and leaves fields that it does not know alone; the words stand in
such a field, so that they travel wherever the file goes and its hash covers them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

MOST_WORDS = 65_536  # the commonest; of more, a rare word counts as unknown
_FIELD = 1001  # of sentencepiece's ModelProto, which leaves numbers from 200 on to others
_TOKEN = re.compile(r"\w+|[^\w\s]")


def common_words(texts: Iterable[str]) -> list[str]:
    """Words and signs of normalised captions, the commonest first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_TOKEN.findall(text))
    return sorted(counts, key=lambda word: (-counts[word], word))[:MOST_WORDS]


def with_words(model: bytes, words: Iterable[str]) -> bytes:
    """A sentencepiece model that holds `words` too."""
    payload = "\n".join(words).encode()
    return model + _varint(_FIELD << 3 | 2) + _varint(len(payload)) + payload


def words_in(model: bytes) -> frozenset[str] | None:
    """The words kept in a model; None where there are none. Raises ValueError for what is no protocol buffer."""
    for number, payload in _fields(model):
        if number == _FIELD:
            return frozenset(payload.decode().split("\n")) - {""}
    return None


def in_known_words(text: str, words: frozenset[str]) -> tuple[str, list[str]]:
    """-> the text in words that are known, and those that are not: another case or width of a known word becomes that
    word, punctuation that no caption has is left out, all else stays."""
    unknown: list[str] = []

    def known(match: re.Match[str]) -> str:
        word = match[0]
        if word in words:
            return word
        plain = unicodedata.normalize("NFKC", word)
        for form in (plain, plain.lower(), plain.casefold()):
            if form in words:
                return form
        if unicodedata.category(word[0]).startswith("P"):
            return " "
        unknown.append(word)
        return word

    changed = _TOKEN.sub(known, text)
    return " ".join(changed.split()), list(dict.fromkeys(unknown))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every field of a protocol buffer."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            if at >= len(message):
                raise ValueError("a protocol buffer that ends early")
            byte = message[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            varint()
            continue
        size = {1: 8, 5: 4}.get(tag & 7) or (varint() if tag & 7 == 2 else -1)
        if size < 0 or at + size > len(message):
            raise ValueError("not a protocol buffer")
        yield tag >> 3, message[at : at + size]
        at += size
