"""Caption pyramids: sentences, columns, cleaning; and samples chosen by their records."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.captions.clean import CaptionRules, clean_captions, normalise_caption
from data_pipelines.captions.sentences import sentence_levels, split_sentences
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.scenes import make_scene
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.sources.derived.cut import Subset, parse_condition, split_by_name
from data_pipelines.sources.records import Fields, record_captions
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.sources.test_tables import everything, opened
from tests.data_pipelines.toy import foreign_members, jsonl_folder, write_tar

WORDS = st.lists(
    st.sampled_from(["A", "dog", "U.S.", "e.g.", "3.5", "J.", "runs", "。", "\n", "!", "?", ".", '."', "Dr."])
)
TEXTS = st.one_of(st.text(max_size=80), WORDS.map(" ".join), WORDS.map("".join))


@given(TEXTS, st.integers(1, 5))
def test_each_level_begins_the_next_and_the_last_is_all(text, most):
    levels = sentence_levels(text, most)
    assert len(levels) <= most
    assert bool(levels) == bool(text.strip())
    for shorter, longer in itertools.pairwise(levels):
        assert longer.startswith(shorter)
        assert len(longer) > len(shorter)
    if levels:
        assert levels[-1] == text.strip()
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split()), "no character is lost"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A dog. It runs! Does it? Yes...", ["A dog.", "It runs!", "Does it?", "Yes..."]),
        ("It weighs 3.5 kg, e.g. a lot. See fig. 2.", ["It weighs 3.5 kg, e.g. a lot.", "See fig. 2."]),
        (
            "The U.S. Army met Dr. Smith and J. Doe. Then it left.",
            ["The U.S. Army met Dr. Smith and J. Doe.", "Then it left."],
        ),
        ('He said "Stop!" and "Go." Then (all.) ran.', ['He said "Stop!" and "Go."', "Then (all.) ran."]),
        ("狗在跑。它是棕色的！“好。”是吗？", ["狗在跑。", "它是棕色的！", "“好。”", "是吗？"]),
        ("1. First item. 2. Second item.", ["1. First item.", "2. Second item."]),
        ("no full stop\nnext line", ["no full stop", "next line"]),
        ("Wait... what? ok", ["Wait... what? ok"]),
        ("Über alles. Ära.", ["Über alles.", "Ära."]),
        ("www.example.org is v1.2.3 now", ["www.example.org is v1.2.3 now"]),
        (" \n ", []),
    ],
)
def test_where_sentences_end(text, sentences):
    assert split_sentences(text) == sentences


def test_levels_beyond_the_limit_go_into_the_last():
    text = "One dog. Two cats. Three cows. Four pigs."
    assert sentence_levels(text, 3) == ["One dog.", "One dog. Two cats.", text]
    assert sentence_levels(text, 1) == [text]
    assert sentence_levels("One two. Three four. Five six.", 2) == ["One two.", "One two. Three four. Five six."]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["Dr. ", "e.g. ", ". ", "A cow. ", '."', "!", "\n", "a."])
def test_long_hostile_texts_take_linear_time(piece):
    """A quadratic rule would take minutes for each of these."""
    text = piece * 250_000
    levels = sentence_levels(text, 6)
    assert levels[-1:] == ([text.strip()] if text.strip() else [])


def test_captions_from_lists_columns_texts_and_templates():
    record = {"captions": ["a", "b"], "title": "T", "text": "One. Two.", "label": "dog", "empty": None, "n": 3}
    for fields, expected in (
        ({}, ("a", "b")),
        ({"captions": "title"}, ("T",)),
        ({"captions": ("label", "empty", "title", "captions")}, ("dog", "T", "a", "b")),
        ({"captions": ("a {label}", "{n} {label}s", "no {empty}")}, ("a dog", "3 dogs")),
        ({"captions": ("label", "text"), "pyramid": "sentences"}, ("dog", "One.", "One. Two.")),
        ({"captions": ("label", "text"), "pyramid": "sentences", "max_levels": 1}, ("dog", "One. Two.")),
        ({"captions": ""}, ()),
    ):
        assert record_captions(record, Fields(**fields)) == expected
    assert record_captions({"text": "x", "caption": "y"}, Fields()) == ("y",)
    assert record_captions({"txt": "two\n\nlines"}, Fields()) == ("two", "lines")
    with pytest.raises(DataError, match="'n' is not a caption"):
        record_captions(record, Fields(captions="n"))


def test_cleaning_is_counted():
    captions = ["a\u0000b", "a b", "e\u0301", "", "x" * 30, "x" * 29, "\ud800", "A &amp; B", "fine"]
    cleaned, notes = clean_captions(captions, CaptionRules(max_characters=20))
    assert cleaned == ["a b", "é", "x" * 20, "A &amp; B", "fine"]
    assert notes == {
        "captions cleaned": 2,
        "captions shortened": 2,
        "empty captions left out": 2,
        "equal captions merged": 2,
    }
    assert clean_captions(["A &amp; B"], CaptionRules(unescape_html=True))[0] == ["A & B"]
    assert clean_captions(["ab", "abc", "a"], CaptionRules(min_characters=2)) == (
        ["ab", "abc"],
        {"short captions left out": 1},
    )


@given(st.lists(st.text(max_size=30), max_size=6))
def test_cleaning_is_idempotent_and_leaves_no_equal_neighbours(captions):
    cleaned, _ = clean_captions(captions, CaptionRules())
    assert clean_captions(cleaned, CaptionRules()) == (cleaned, {})
    assert all(a != b for a, b in itertools.pairwise(cleaned))
    assert set(cleaned) == {normalise_caption(text) for text in captions} - {""}


def test_scenes_keep_all_their_levels():
    """Their level names would be wrong if equal neighbours were merged."""
    for index in range(300):
        captions = make_scene(0, index, "train").captions
        assert clean_captions(captions, CaptionRules())[0] == list(captions)


def test_the_data_set_says_how_its_levels_were_made(tmp_path):
    jsonl_folder(tmp_path / "f", title="A title")
    columns = opened(tmp_path / "f", captions=("group", "title"))
    manifest = prepare(columns, tmp_path / "a", PrepareConfig(size=8))
    assert read_manifest(tmp_path / "a") == manifest
    assert manifest.level_names == ("group", "title")
    assert manifest.levels_made == {"fields": ["group", "title"], "order": "as given, coarse to fine"}
    sentences = prepare(opened(tmp_path / "f", pyramid="sentences"), tmp_path / "b", PrepareConfig(size=8))
    assert sentences.levels_made["fields"] == "captions"
    assert "by sentences" in sentences.levels_made["order"]
    assert sentences.level_names == ()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("label=dog", [0]),
        ("label=dog,cat", [0, 1]),
        ("label!=dog", [1, 2]),
        ("width>=20", [1, 2]),
        ("width<20", [0]),
        ("width>20", [2]),
        ("width<=20", [0, 1]),
        ("tags=red", [0, 2]),
        ("good=true", [1]),
        ("rare=x", [2]),
        ("rare!=x", []),
        ("width=20", [1]),
    ],
)
def test_conditions(text, kept):
    records = [
        {"label": "dog", "width": 10, "tags": ["red", "blue"], "good": False},
        {"label": "cat", "width": "20", "tags": ["green"], "good": True},
        {"label": "cow", "width": 30.5, "tags": ["red"], "rare": "x"},
    ]
    condition = parse_condition(text)
    assert [n for n, record in enumerate(records) if condition.holds(record)] == kept


@pytest.mark.parametrize("text", ["label", "=dog", "width>=wide", ""])
def test_what_is_no_condition(text):
    with pytest.raises(ConfigError, match="`where`"):
        parse_condition(text)


def test_filtered_samples_are_counted_and_the_rest_is_whole(tmp_path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 10))
    write_tar(tmp_path / "train-1.tar", foreign_members(10, 10))
    write_tar(tmp_path / "val-0.tar", foreign_members(20, 2))
    whole = everything(opened(tmp_path)["train"])
    sources = opened(tmp_path, where=("group=g1,g2", "year>=2005"))
    found = everything(sources["train"])
    expected = [pair for n, pair in enumerate(whole) if n % 4 in (1, 2) and n >= 5]
    assert [pair.image for pair in found] == [pair.image for pair in expected]
    assert sources["train"].left_out == {"group=g1,g2": 10, "year>=2005": 2}
    assert list(sources["val"].names(0, 1)) == ["k21"]
    assert len(sources["val"]) == 1
    manifest = prepare(sources, tmp_path / "out", PrepareConfig(size=8))
    part = manifest.source["splits"]["train"]["parts"][0]
    assert (part["samples"], part["left_out"]) == (8, {"group=g1,g2": 10, "year>=2005": 2})
    assert manifest.splits["train"].samples == 8
    only = opened(tmp_path, where=("year<2001",))
    assert set(only) == {"train"}, "a split of which nothing is left goes"
    with pytest.raises(DataError, match=r"no sample fits `where` group=g9.*group=g0"):
        opened(tmp_path, where=("group=g9",))


def test_a_part_of_a_part_is_read_like_any_source(tmp_path):
    jsonl_folder(tmp_path, 40)
    whole = opened(tmp_path)["train"]
    parts = opened(tmp_path, where=("group=a",), val_share=0.3)
    even = {pair.source for n, pair in enumerate(everything(whole)) if n % 2 == 0}
    assert {pair.source for part in parts.values() for pair in everything(part)} == even
    train = parts["train"]
    assert isinstance(train, Subset)
    pieces = [pair.source for n in range(0, len(train), 3) for pair in train.pairs(n, min(n + 3, len(train)))]
    assert pieces == [pair.source for pair in everything(train)]
    shares = [part["share"] for part in train.identity()["parts"]]
    assert shares == ["where group=a", "train of val 0.3"]
    assert split_by_name(whole, {"val": 0.3})["val"].identity() != parts["val"].identity()
    assert json.dumps(train.identity())
