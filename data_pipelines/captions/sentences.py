"""One long text -> a caption pyramid: its first sentence, its first two, ..., all of it.

Where a sentence ends (a stated rule, not a grammar): after . ! ? ... and closing quotes or brackets, if white space
and then anything but a small letter follows; after a CJK full stop; at a line break. Not after a common
abbreviation ("e.g.", "Dr."), single letters with full stops ("U.S.", "J. Smith") or a number that opens a list
item ("1. "). A decimal number has no white space inside and is never cut.
"""

from __future__ import annotations

import re

_CJK = "。！？｡"
_CLOSING = "\"'”’»)]}」』）】"
_ENDS = re.compile(  # possessive, and from the first mark of a run only: a million marks take linear time
    rf"(?<![.!?…])[.!?…]++[{re.escape(_CLOSING)}]*+(?=\s)|[{_CJK}]++[{re.escape(_CLOSING)}]*+|(?=\n)"
)
_ABBREVIATIONS = re.compile(
    "e.g|i.e|etc|vs|cf|ca|approx|no|fig|vol|pp|ed|al|mr|mrs|ms|dr|prof|st|sr|jr|gen|col|lt|sgt|rev|hon|gov|capt|"
    "inc|ltd|co|corp|dept|est|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec".replace(".", "\\.")
)
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # J, U.S, a.m
_NEXT = re.compile(r"\s*(\S?)")
_LONGEST_WORD = 32  # characters looked back at: no abbreviation is longer, and no text takes quadratic time
_LIST_NUMBER = re.compile(r"\d{1,3}")


def split_sentences(text: str) -> list[str]:
    """Stripped, none empty; joined with spaces they are the text up to white space."""
    pieces, start = [], 0
    for match in _ENDS.finditer(text):
        if match.end() > start and _is_end(text, start, match):
            pieces.append(text[start : match.end()])
            start = match.end()
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def sentence_levels(text: str, max_levels: int) -> list[str]:
    """At most `max_levels` texts, each the beginning of the next; the last one is all of `text`.

    Of a text with more sentences, the last level holds all those that are left.
    """
    sentences = split_sentences(text)
    if not sentences:
        return []
    ends = [*range(1, min(len(sentences), max_levels)), len(sentences)]
    return [_join(text, sentences[:end]) for end in ends]


def _join(text: str, sentences: list[str]) -> str:
    """The beginning of `text` that holds these sentences: between them lies what lay there."""
    end = 0
    for sentence in sentences:
        end = text.index(sentence, end) + len(sentence)
    return text[:end].strip()


def _is_end(text: str, start: int, match: re.Match[str]) -> bool:
    mark = match.group()
    if not mark or mark[0] in _CJK:
        return True
    following = _NEXT.match(text, match.end())
    if following and following.group(1).islower():
        return False
    if mark != ".":
        return True
    words = text[max(start, match.start() - _LONGEST_WORD) : match.start()].split()
    word = words[-1].lstrip("([{\"'“‘«").lower() if words else ""
    if len(words) == 1 and _LIST_NUMBER.fullmatch(word):
        return False
    return not _ABBREVIATIONS.fullmatch(word) and not _INITIALS.fullmatch(word)
