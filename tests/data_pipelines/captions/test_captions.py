"""Captions as tokens: round trips, fixed special ids, equal models from equal texts, nothing cut unseen."""

from __future__ import annotations

import multiprocessing
import pickle
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.captions.clean import MAX_CHARACTERS, caption_identity, normalise_caption
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD, UNK, CaptionTokenizer, _sample, pick_levels
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.toy import vocabulary

TWO_SHAPES = 2897073314800724336
TOKENIZER = vocabulary()
TEXTS = st.text(st.characters(), max_size=60)


@given(TEXTS)
def test_normalised_text_is_clean_and_stays_as_it_is(text):
    clean = normalise_caption(text)
    assert normalise_caption(clean) == clean
    assert clean == unicodedata.normalize("NFC", clean)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in clean)
    clean.encode()  # no lone surrogate is left


def test_equal_captions_are_equal_in_every_writing():
    assert normalise_caption("  a\tcafe\u0301 \n\x00") == normalise_caption("a café") == "a café"
    assert caption_identity("a café") != caption_identity("a cafe")
    assert caption_identity("two shapes") == TWO_SHAPES, "identities are kept in files"
    assert len(normalise_caption("x" * 5000)) == MAX_CHARACTERS


@settings(max_examples=300)
@given(TEXTS)
def test_any_text_survives_the_round_trip(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == normalise_caption(text)


def test_what_any_ids_say_is_one_clean_line():
    """A model that writes chooses ids: bytes of control characters among them."""
    every = TOKENIZER.decode(range(TOKENIZER.vocab_size))
    assert every == normalise_caption(every, len(every))
    assert len(every.splitlines()) == 1
    assert "\x1b" not in every


def test_special_ids_are_fixed_and_cannot_be_typed():
    assert (PAD, UNK, BOS, EOS, BOI, EOI) == (0, 1, 2, 3, 4, 5)
    typed = TOKENIZER.encode("<pad> <bos> <boi> <eoi> <unk>")
    assert min(typed) > EOI
    assert TOKENIZER.decode([BOS, *TOKENIZER.encode("two shapes"), EOS, BOI, EOI, PAD]) == "two shapes"
    assert TOKENIZER.decode(torch.tensor(TOKENIZER.encode("two shapes"))) == "two shapes"


def test_the_model_is_a_function_of_the_bag_of_captions(tmp_path):
    texts = [f"a picture of {n} shapes" for n in range(50)]
    one = CaptionTokenizer.train(texts, tmp_path / "m", 300)
    other = CaptionTokenizer.train(reversed(texts), None, 300)
    assert one.sha256 == other.sha256 == CaptionTokenizer.load(tmp_path / "m").sha256
    assert CaptionTokenizer.train(texts[:20], None, 300).sha256 != one.sha256


def test_common_words_of_a_small_text_become_single_pieces():
    """unigram would take its pieces from distinct words only, where "circle" occurs once."""
    texts = [f"a {size} red circle" for size in ("small", "large")] * 200
    assert len(CaptionTokenizer.train(texts, None, 400).encode("a small red circle")) == 4


def test_a_small_text_limits_the_vocabulary_by_itself():
    assert CaptionTokenizer.train(["a red circle"], None, 50_000).vocab_size < 300


def test_wrong_input_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"vocab_size=10: too small.* need \d+"):
        CaptionTokenizer.train(["a red circle"], None, 10)
    with pytest.raises(DataError, match="no text"):
        CaptionTokenizer.train(["", " \n"], None, 300)
    with pytest.raises(DataError, match="nowhere"):
        CaptionTokenizer.load(tmp_path / "nowhere")
    TOKENIZER.save(tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-100])
    with pytest.raises(DataError, match="cut"):
        CaptionTokenizer.load(tmp_path / "cut")
    (tmp_path / "html").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="html"):
        CaptionTokenizer.load(tmp_path / "html")


def test_a_pickled_tokenizer_is_the_same():
    copy = pickle.loads(pickle.dumps(TOKENIZER))
    assert copy.sha256 == TOKENIZER.sha256
    assert copy.encode("a large circle") == TOKENIZER.encode("a large circle")


def test_a_batch_holds_every_level_and_the_identity_of_captions():
    captions = [["two shapes", "a large  circle"], ["two shapes"], [], ["\n", "a large circle"]]
    ids, mask, identity = TOKENIZER.encode_batch(captions, levels=3, max_tokens=24)
    assert ids.shape == (4, 3, 24)
    assert ids.dtype == identity.dtype == torch.int64
    assert mask.tolist() == [[True, True, False], [True, False, False], [False] * 3, [False, True, False]]
    assert identity[0, 0] == identity[1, 0]
    assert identity[0, 1] == identity[3, 1] != identity[0, 0]
    assert (identity[~mask] == -1).all()
    assert (identity[mask] >= 0).all()
    assert TOKENIZER.decode(ids[0, 1]) == "a large circle"
    assert (ids[~mask] == PAD).all()


def test_without_levels_the_longest_pyramid_counts():
    ids, _, _ = TOKENIZER.encode_batch([["a"], ["a", "b", "c"]], max_tokens=4)
    assert ids.shape == (2, 3, 4)


@given(st.lists(st.sampled_from("abcdef"), max_size=6), st.integers(1, 7))
def test_the_finest_caption_is_always_kept(pyramid, levels):
    picked = pick_levels(pyramid, levels)
    assert len(picked) == min(len(pyramid), levels)
    assert picked[-1:] == pyramid[-1:]
    assert picked[:-1] == pyramid[: max(len(picked) - 1, 0)]


def test_cut_captions_are_counted_and_warned_of_once():
    tokenizer = pickle.loads(pickle.dumps(TOKENIZER))
    with pytest.warns(UserWarning, match="cut at max_tokens=2"):
        ids, _, _ = tokenizer.encode_batch([["a large red circle on a white background"]], max_tokens=2)
    assert ids.shape == (1, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode_batch([["a large red circle"], ["two"]], max_tokens=2)
    assert tokenizer.cut_captions == 2


def test_normalised_text_is_what_sentencepiece_learns_from():
    """Its own normaliser is off: two of them could disagree."""
    for text in ("ﬁne Ⅳ ｗide", "a  b\u00a0c", "e\u0301", "İstanbul ß", "\ufb01 \u2126"):
        clean = normalise_caption(text)
        assert TOKENIZER._processor.Normalize(clean).replace("\u2581", " ").strip() == clean


def test_a_stream_longer_than_the_sample_is_never_held():
    """40 of 3000: the model is that of a seeded sample, evenly drawn."""
    alive = peak = 0

    class Text(str):
        def __new__(cls, value: str) -> Text:
            nonlocal alive, peak
            alive += 1
            peak = max(peak, alive)
            return str.__new__(cls, value)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream():
        return (Text(f"picture {n} of {n % 7}") for n in range(3000))

    one = CaptionTokenizer.train(stream(), None, 300, input_sentence_size=40)
    assert peak <= 45
    assert one.sha256 == CaptionTokenizer.train(stream(), None, 300, input_sentence_size=40).sha256
    assert one.sha256 != CaptionTokenizer.train(list(stream())[:40], None, 300).sha256
    kept = _sample((str(n) for n in range(3000)), 300)
    assert len(set(kept)) == 300
    assert abs(np.mean([int(text) for text in kept]) - 1500) < 5 * 3000 / 12**0.5 / 300**0.5


def test_threads_and_forks_encode_as_one_process_does():
    texts = [f"a {n} red circle left of {n % 5} blue squares" for n in range(400)]
    tokenizer = pickle.loads(pickle.dumps(TOKENIZER))
    expected = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer.encode, texts * 4)) == expected * 4
        parts = list(pool.map(lambda n: tokenizer.encode_batch([texts[n : n + 8]], max_tokens=3)[0], range(0, 400, 8)))
    assert torch.equal(torch.cat(parts).flatten(0, 1), tokenizer.encode_batch([texts], max_tokens=3)[0][0])
    assert tokenizer.cut_captions == 800, "every cut is counted once"
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map(tokenizer.encode, texts) == expected
