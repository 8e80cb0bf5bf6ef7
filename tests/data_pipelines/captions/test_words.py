"""Words in a captions model: they travel with its file, change no id, and strangers are told from other spellings."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.captions.words import MOST_WORDS, common_words, in_known_words, with_words, words_in

CAPTIONS = ["a red circle", "a Red Cross, 3 of 4", "the red café"]


def test_the_commonest_words_come_first_and_rare_ones_may_go() -> None:
    assert common_words(CAPTIONS)[:2] == ["a", "red"]
    assert set(common_words(CAPTIONS)) == {*["a", "red", "circle", "Red", "Cross", ",", "3", "of", "4", "the", "café"]}
    many = [f"w{i} twice twice" for i in range(MOST_WORDS + 10)]
    assert len(common_words(many)) == MOST_WORDS
    assert common_words(many)[0] == "twice"


def test_words_travel_with_the_file_and_change_no_id(tmp_path: Path) -> None:
    model = CaptionTokenizer.train(CAPTIONS, tmp_path / "captions.model", 300)
    again = CaptionTokenizer.load(tmp_path / "captions.model")
    content = (tmp_path / "captions.model").read_bytes()
    assert words_in(content) == set(common_words(CAPTIONS))
    plain = sentencepiece.SentencePieceProcessor(model_proto=content)
    assert plain.EncodeAsIds("a red circle") == model.encode("a red circle") == again.encode("a red circle")
    assert again.in_known_words("a blue circle") == ("a blue circle", ["blue"])


def test_a_model_without_words_knows_of_no_strangers() -> None:
    whole = CaptionTokenizer.train(CAPTIONS, None, 300)
    content = whole.__reduce__()[1][0]
    bare = content[: content.rindex(b"a\nred")]
    bare = bare[: next(i for i in range(len(bare) - 1, 0, -1) if _reads(bare[:i]))]
    assert words_in(bare) is None
    assert CaptionTokenizer(bare).in_known_words("A zebra") == ("A zebra", [])
    assert CaptionTokenizer(with_words(bare, ["zebra"])).in_known_words("A zebra")[1] == ["A"]


def _reads(content: bytes) -> bool:
    try:
        words_in(content)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("A RED circle", "a red circle", []),
        ("a Red Cross", "a Red Cross", []),
        ("a red circle.", "a red circle", []),
        ("red, red", "red, red", []),
        ("ｒｅｄ CAFÉ", "red café", []),
        ("a zebra and a zebra", "a zebra and a zebra", ["zebra", "and"]),
        ("красный 🦓", "красный 🦓", ["красный", "🦓"]),
        ("", "", []),
    ],
)
def test_other_spellings_are_known_and_strangers_named(text: str, known: str, unknown: list[str]) -> None:
    assert in_known_words(text, frozenset(common_words(CAPTIONS))) == (known, unknown)


def test_what_is_no_protocol_buffer_is_said() -> None:
    for content in (b"\xff" * 9, b"\x0a\x09ab", b"\x0b"):
        with pytest.raises(ValueError, match="protocol buffer"):
            words_in(content)
