"""Quotes in CSV files: whatever a writer does with them, its cells come out; where that is not clear, it is said."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipelines.sources.tables.csv_rows import scan_csv
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.sources.test_tables import read_all

TEXTS = st.lists(st.sampled_from(["dog", ' "cat" ', '"', "\n", ", ", "\t", "\\", "runs"]), min_size=1).map("".join)
PLAIN = st.lists(st.sampled_from(["dog", ' "cat" ', "runs", "'", "; "]), min_size=1).map(" ".join)


def written(captions, ending="tsv", **options) -> str:
    """A table of pictures with these captions."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if ending == "tsv" else ",", lineterminator="\n", **options)
    writer.writerows([("path", "caption"), *((f"images/p{n}.jpg", caption) for n, caption in enumerate(captions))])
    return text.getvalue()


def raw(captions) -> str:
    """A .tsv of a program that knows no quoting."""
    return "".join(f"{a}\t{b}\n" for a, b in [("path", "caption"), *((f"images/p{n}.jpg", c) for n, c in captions)])


def captions_of(path, **quoting) -> list[str]:
    return [record["caption"] for record in read_all(scan_csv(path, **quoting))]


@settings(deadline=None)
@given(captions=st.lists(TEXTS, min_size=4, max_size=8), ending=st.sampled_from(["csv", "tsv"]))
@example(captions=["dog", "dog", "dog", '\\\\"'], ending="csv")  # backslashes before a quote that is doubled
def test_captions_of_a_writer_that_quotes_come_out(tmp_path_factory, captions, ending):
    """A cell beside them shows what the writer does; lines of text that look like rows come at no place here."""
    path = tmp_path_factory.mktemp("q") / f"t.{ending}"
    shown = ['one, two\tthree "four"', *captions]
    path.write_text(written(shown, ending), newline="")
    assert captions_of(path) == captions_of(path, quoting="minimal") == shown


@settings(deadline=None)
@given(captions=st.lists(PLAIN, min_size=1, max_size=8), before=st.integers(0, 8), after=st.integers(1, 8))
def test_no_caption_that_begins_with_a_quote_swallows_rows(tmp_path_factory, captions, before, after):
    path = tmp_path_factory.mktemp("q") / "t.tsv"
    shown = [*["a dog"] * before, '"Hello world', *captions, *['he said "bye"', 'bye now"', '"x" y'][:after], "end"]
    path.write_text(raw(enumerate(shown)), newline="")
    assert captions_of(path) == captions_of(path, quoting="none") == shown
    assert scan_csv(path).identity()["quoting"] == "none"


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_writer_with_a_backslash_before_quotes(tmp_path, quoting, ending):
    captions = ['it is "so", it is', 'a "b"', 'two\nlines, "said"', "plain", 'ends "so"']
    path = tmp_path / f"t.{ending}"
    path.write_text(written(captions, ending, quoting=quoting, doublequote=False, escapechar="\\"), newline="")
    assert captions_of(path) == captions
    assert scan_csv(path).identity()["quoting"] == "backslash"


def test_lines_inside_quotes_are_text_though_they_could_be_rows(tmp_path):
    captions = ["red car\nblue, small", 'a, b\nc "d", e', "one\n\ntwo, three\nfour"]
    for name, options in (("a.csv", {}), ("b.csv", {"quoting": csv.QUOTE_ALL})):
        (tmp_path / name).write_text(written(captions, "csv", **options), newline="")
        assert captions_of(tmp_path / name) == captions
        assert "quoting" not in scan_csv(tmp_path / name).identity(), "as it was before there was a choice"


@pytest.mark.parametrize("name", ["red", "COCO_1", "17", "a/b.png"])
def test_text_over_lines_beside_other_quoted_text_is_text(tmp_path, name):
    """A line with as many commas as a row has, in a table that quotes elsewhere."""
    lines = ["key,caption", f'{name},"one, two"', f'{name},"a dog runs\nfast, and far"', f"{name},plain"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert captions_of(tmp_path / "t.csv") == ["one, two", "a dog runs\nfast, and far", "plain"]


def test_doubled_quotes_show_that_no_row_is_lost(tmp_path):
    """Where no column tells what a row looks like."""
    (tmp_path / "t.csv").write_text('colour,caption\nred,"x ""y""\nblue, z"\ngreen,w\n')
    assert captions_of(tmp_path / "t.csv") == ['x "y"\nblue, z', "w"]


def test_a_doubtful_table_is_an_error_that_names_row_and_option(tmp_path):
    path = tmp_path / "t.tsv"
    quoted = 'images/p0.jpg\t"it says ""yes"""\n'
    path.write_text(raw([]) + quoted + raw([(1, '"Hello'), (2, "x"), (3, 'bye"'), (4, "y")]).partition("\n")[2])
    with pytest.raises(DataError, match=r"t\.tsv: the quote .* row 2 .* look like rows.*`quoting`: none"):
        scan_csv(path)
    assert captions_of(path, quoting="none") == ['"it says ""yes"""', '"Hello', "x", 'bye"', "y"]
    assert len(captions_of(path, quoting="minimal")) == 3
    path.write_text(raw([(n, f"no {n}") for n in range(5)]) + 'images/p5.jpg\t"one\ttwo\n')
    with pytest.raises(DataError, match=r"row 6 opens ends nowhere, and nothing else tells"):
        scan_csv(path)
    no_kind = "a\tb\nred\t" + '"x\nblue\ty\ngreen\tz"\n'
    path.write_text(no_kind)
    with pytest.raises(DataError, match="row 1"):
        scan_csv(path)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(tmp_path, ends):
    captions = ["a dog", 'says "so", twice', "café"]
    (tmp_path / "t.csv").write_text(written(captions, "csv").replace("\n", ends), newline="")
    assert captions_of(tmp_path / "t.csv") == captions


def test_spaces_after_dividers_belong_to_no_cell(tmp_path):
    (tmp_path / "t.csv").write_text('name| number| comment\nimages/p0.jpg| 0| "a | b" \nimages/p1.jpg| 1| two dogs .\n')
    rows = scan_csv(tmp_path / "t.csv", "none")
    assert rows.columns() == ("name", "number", "comment")
    (tmp_path / "t.csv").write_text('name| number| comment\nimages/p0.jpg| 0| "a | b"\nimages/p1.jpg| 1| two dogs .\n')
    records = read_all(scan_csv(tmp_path / "t.csv"))
    assert [list(record.values()) for record in records] == [
        ["images/p0.jpg", "0", "a | b"],
        ["images/p1.jpg", "1", "two dogs ."],
    ]


def test_a_divider_inside_a_quoted_name_divides_nothing(tmp_path):
    (tmp_path / "t.csv").write_text('"path";"caption, short"\n"a.png";"x"\n')
    assert scan_csv(tmp_path / "t.csv").columns() == ("path", "caption, short")
