"""Tables: records come out as they were put in, whatever lies inside the cells, and bad rows are named."""

from __future__ import annotations

import csv
import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.sources.base import Bad, Pair
from data_pipelines.sources.open import SourceConfig, open_source
from data_pipelines.sources.records import Fields
from data_pipelines.sources.rows import join_rows, scan_jsonl
from data_pipelines.sources.tables.csv_rows import scan_csv
from data_pipelines.sources.tables.parquet_rows import ParquetRows
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.toy import file_bytes, picture, write_tar

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
AWKWARD = st.one_of(CELLS, st.sampled_from(['"', 'a "b" c', "x\ny", "x\r\ny", "\r", ",", ";", "\t", "'", " a "]))


def everything(source) -> list[Pair | Bad]:
    return list(source.pairs(0, len(source)))


def read_all(rows) -> list[object]:
    return list(rows.read(0, len(rows), rows.columns()))


def opened(path, **fields):
    config = {
        key: fields.pop(key)
        for key in ("kind", "split", "split_field", "group", "val_share", "images", "where", "columns")
        if key in fields
    }
    return open_source(path, SourceConfig(fields=Fields(**fields), **config))


@settings(deadline=None)
@given(
    table=st.lists(st.tuples(AWKWARD, AWKWARD, AWKWARD), min_size=1, max_size=8),
    divider=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
def test_csv_cells_come_out_as_they_went_in(tmp_path_factory, table, divider, ends, bom):
    path = tmp_path_factory.mktemp("c") / "t.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=divider, lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b", "c"), *table])
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())
    rows = scan_csv(path)
    expected = [{name: cell or None for name, cell in zip("abc", cells, strict=True)} for cells in table]
    assert read_all(rows) == expected
    middle = len(rows) // 2
    assert [*rows.read(0, middle, ()), *rows.read(middle, len(rows), ())] == expected


@settings(deadline=None)
@given(st.lists(st.dictionaries(CELLS, st.one_of(CELLS, st.integers(), st.lists(CELLS, max_size=3))), min_size=1))
def test_jsonl_records_come_out_as_they_went_in(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("j") / "t.jsonl"
    path.write_text("\n\n".join(json.dumps(record, ensure_ascii=False) for record in records), newline="\n")
    rows = scan_jsonl(path)
    assert read_all(rows) == records
    assert [rows.place(n) for n in range(len(rows))] == [f"t.jsonl line {2 * n + 1}" for n in range(len(rows))]


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 300),
    group=st.integers(1, 150),
    cuts=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=5),
)
def test_any_rows_of_a_parquet_file_in_any_order(tmp_path_factory, count, group, cuts):
    path = tmp_path_factory.mktemp("p") / "t.parquet"
    table = pa.table({"n": list(range(count)), "image": [bytes([n % 256]) for n in range(count)]})
    pq.write_table(table, path, row_group_size=group)
    rows = ParquetRows(path)
    whole = table.to_pylist()
    for first, end in cuts:
        first, end = min(first, end, count), min(max(first, end), count)
        assert list(rows.read(first, end, ("n", "image"))) == whole[first:end]
        assert list(rows.read(first, end, ("n", "image"), pictures=False)) == [{"n": n} for n in range(first, end)]


def test_a_shard_reads_only_its_row_groups_and_its_columns(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"n": range(100), "m": range(100), "big": ["x" * 99] * 100}), path, row_group_size=10)
    asked = []
    real = pq.ParquetFile.iter_batches

    def watched(self, size, row_groups, columns, **rest):
        asked.append((row_groups, columns))
        return real(self, size, row_groups=row_groups, columns=columns, **rest)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    rows = ParquetRows(path)
    assert [record["n"] for record in rows.read(25, 33, ("n",))] == list(range(25, 33))
    assert [record["n"] for record in rows.read(33, 35, ("n",))] == [33, 34]
    assert asked == [([2], ["n"]), ([3], ["n"])], "going on inside a row group opens it once"


def test_rows_of_several_files_and_of_a_pickled_copy(tmp_path):
    for name, first in (("a", 0), ("b", 7), ("c", 12)):
        lines = [json.dumps({"n": n}) for n in range(first, {0: 7, 7: 12, 12: 20}[first])]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    rows = join_rows([scan_jsonl(tmp_path / f"{name}.jsonl") for name in "abc"])
    copy = pickle.loads(pickle.dumps(rows))
    for first in range(20):
        for end in range(first, 21):
            assert [record["n"] for record in copy.read(first, end, ())] == list(range(first, end))
    assert rows.place(8) == "b.jsonl line 2"


def picture_table(folder, count=6):
    """Pictures p0.png ... under images/, and their bytes."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images = [file_bytes(picture(n, (8 + n, 9))) for n in range(count)]
    for n, data in enumerate(images):
        (folder / f"images/p{n}.png").write_bytes(data)
    return images


def test_bad_rows_of_a_csv_are_named_not_fatal(tmp_path):
    images = picture_table(tmp_path)
    rows = [b"images/p0.png,a dog", b"images/p1.png,a dog,more", b"images/p1.png", b'images/p1.png,"a" dog']
    rows += [b"images/p1.png,caf\xe9", b",nothing", b"images/p2.png,", b"", b'images/p3.png,"two\nlines, ""said"""']
    rows += [b"images/p4.png,half a \rline"]  # must not be read as "half a "
    (tmp_path / "t.csv").write_bytes(b"\n".join([b"path,caption", *rows]) + b"\n")
    found = everything(opened(tmp_path / "t.csv")["train"])
    bad = {n: item for n, item in enumerate(found) if isinstance(item, Bad)}
    assert {n: item.reason for n, item in bad.items()} == {
        1: "ragged row",
        2: "ragged row",
        3: "row cannot be read",
        4: "not UTF-8",
        5: "no picture",
        8: "row cannot be read",
    }
    assert all(item.source == f"t.csv row {n + 1}" for n, item in bad.items())
    assert [found[n].captions for n in (0, 6, 7)] == [("a dog",), (), ('two\nlines, "said"',)]
    assert [found[n].image for n in (0, 6, 7)] == [images[0], images[2], images[3]]


def test_a_quote_that_never_ends_is_an_error_not_a_short_table(tmp_path):
    (tmp_path / "t.csv").write_text('path,caption\na.png,"x, x"\nb.png,"y\nc.png,z\n')
    for quoting in ("auto", "minimal"):
        with pytest.raises(DataError, match=r"t\.csv: the quote .* row 2.*`quoting`"):
            scan_csv(tmp_path / "t.csv", quoting)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no records"),
        (b"path,caption\n", "no records"),
        ("path,caption\na,b\n".encode("utf-16"), "UTF-16"),
        (b"path,caf\xe9\na,b\n", "iconv"),
        (b"path,path\na,b\n", "two columns"),
    ],
)
def test_files_that_are_no_table(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        opened(tmp_path / "t.csv")


def test_a_cell_longer_than_the_csv_module_allows(tmp_path):
    picture_table(tmp_path, 1)
    text = "word " * 40_000
    (tmp_path / "t.tsv").write_text(f"path\tcaption\nimages/p0.png\t{text}\n")
    assert everything(opened(tmp_path / "t.tsv")["train"])[0].captions == (text,)


@pytest.mark.parametrize("form", ["bytes", "paths", "struct"])
def test_pictures_of_a_parquet_table(tmp_path, form):
    images = picture_table(tmp_path)
    column = {
        "bytes": images,
        "paths": [f"images/p{n}.png" for n in range(6)],
        "struct": [{"bytes": data if n % 2 else None, "path": f"images/p{n}.png"} for n, data in enumerate(images)],
    }[form]
    columns = {"image": column, "text": [f"picture {n}" for n in range(6)], "label": [n % 2 for n in range(6)]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=4)
    source = opened(tmp_path / "t.parquet", labels=("label",))["train"]
    pairs = everything(source)
    assert [pair.image for pair in pairs] == images
    assert [pair.captions for pair in pairs] == [(f"picture {n}",) for n in range(6)]
    assert [pair.labels for pair in pairs] == [{"label": n % 2} for n in range(6)]
    named = [f"images/p{n}" if form == "paths" else f"t.parquet row {n + 1}" for n in range(6)]
    assert list(source.names(0, 6)) == named


def test_keys_templates_and_splits_of_tables(tmp_path):
    picture_table(tmp_path)
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        lines = [json.dumps({"id": n, "kind": "toy"}) for n in numbers]
        (tmp_path / f"list-{split}.jsonl").write_text("\n".join(lines))
    sources = opened(tmp_path, image="images/p{id}.png", key="id", captions=("kind", "a {kind} no. {id}"))
    assert {split: list(source.names(0, len(source))) for split, source in sources.items()} == {
        "train": ["0", "1", "2", "3"],
        "val": ["4", "5"],
    }
    assert everything(sources["val"])[1].captions == ("toy", "a toy no. 5")
    with pytest.raises(ConfigError, match="say their splits"):
        opened(tmp_path, image="images/p{id}.png", captions="kind", split="test")


def test_paths_stay_inside_the_folder(tmp_path):
    images = picture_table(tmp_path / "set")
    (tmp_path / "secret.png").write_bytes(images[0])
    (tmp_path / "set/out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set/in.png").symlink_to(tmp_path / "set/images/p1.png")
    names = ["../secret.png", str(tmp_path / "secret.png"), "out.png", "images", "images/a\0b"]
    names += ["in.png", "images/../images/p2.png", str(tmp_path / "set/images/p3.png")]
    lines = [json.dumps({"path": name, "caption": "x"}) for name in names]
    (tmp_path / "set/t.jsonl").write_text("\n".join(lines))
    found = everything(opened(tmp_path / "set/t.jsonl")["train"])
    reasons = [item.reason if isinstance(item, Bad) else item.image for item in found]
    assert reasons == ["path leaves the folder"] * 3 + ["not a file", "not a file name", *images[1:4]]
    wider = everything(opened(tmp_path / "set/t.jsonl", images=tmp_path)["train"])
    assert isinstance(wider[1], Pair), "`images` says what may be read"


def test_addresses_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "t.csv").write_text("url,caption\nhttps://example.org/a.jpg,x\n")
    with pytest.raises(ConfigError, match="img2dataset"):
        opened(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"does not download.*img2dataset"):
        opened(tmp_path / "t.csv", image="url")
    for path in ("s3://bucket/data", "https://example.org/a.tar", "pipe:cat a.tar"):
        with pytest.raises(DataError, match=r"not a local path.*img2dataset"):
            open_source(path, SourceConfig())
    picture_table(tmp_path)
    lines = ["path,caption", *[f"images/p{n}.png,x" for n in range(30)], "https://example.org/a.jpg,x"]
    (tmp_path / "late.csv").write_text("\n".join(lines))
    assert everything(opened(tmp_path / "late.csv")["train"])[-1].reason == "web address, not a file"


def test_unknown_columns_name_the_nearest(tmp_path):
    (tmp_path / "t.csv").write_text("path,title,description\na.png,x,y\n")
    for fields, words in (
        ({"captions": "titel"}, r"t\.csv: no field 'titel' \(`fields.captions`\); did you mean title"),
        ({"captions": "a {titel}"}, "'titel'.*did you mean title"),
        ({"captions": "title", "labels": ("zzz",)}, r"`fields.labels`.*there are path, title, description"),
        ({"captions": "title", "image": "pth"}, r"`fields.image`.*did you mean path"),
        ({"captions": "title", "where": ("pth=1",)}, r"`where`.*did you mean path"),
        ({}, r"no field with captions is known.*`fields.captions`"),
    ):
        with pytest.raises(ConfigError, match=words):
            opened(tmp_path / "t.csv", **fields)


def test_tables_of_several_kinds_in_one_folder_must_be_named(tmp_path):
    picture_table(tmp_path)
    (tmp_path / "a.csv").write_text("path,caption\nimages/p0.png,x\n")
    (tmp_path / "b.jsonl").write_text('{"path": "images/p1.png", "caption": "y"}\n')
    with pytest.raises(DataError, match=r"several kinds.*csv, jsonl"):
        opened(tmp_path)
    assert everything(opened(tmp_path, kind="jsonl")["train"])[0].captions == ("y",)


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [b"x" * 50] * 100, "text": ["y"] * 100}), path, compression="none")
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(DataError, match=r"t\.parquet: not a readable Parquet file"):
        opened(path)
    path.write_bytes(b"PAR1" + b"\xff" * 40 + data[44:])
    found = everything(opened(path)["train"])
    assert {item.reason for item in found} == {"row group cannot be read"}
    assert len(found) == 100


def test_a_source_holds_some_bytes_per_sample(tmp_path):
    """What a worker process is sent; the names of files in a folder are all that may be longer."""

    def per_sample(make, few=200, many=1200) -> float:
        sizes = []
        for count in (few, many):
            folder = tmp_path / f"{make.__name__}{count}"
            folder.mkdir()
            sizes.append(len(pickle.dumps(opened(make(folder, count))["train"])))
        return (sizes[1] - sizes[0]) / (many - few)

    def as_jsonl(folder, count):
        (folder / "captions.jsonl").write_text('{"file_name": "a.png", "captions": ["x", "y"]}\n' * count)
        return folder

    def as_csv(folder, count):
        (folder / "t.csv").write_text("path,caption\n" + "a.png,some words\n" * count)
        return folder

    def as_parquet(folder, count):
        pq.write_table(pa.table({"image": [b"x" * 99] * count, "text": ["some words"] * count}), folder / "t.parquet")
        return folder

    def as_classes(folder, count):
        for part in "ab":
            (folder / part).mkdir()
        for n in range(count):
            (folder / "ab"[n % 2] / f"{n:06d}.png").touch()
        return folder

    def as_tars(folder, count):
        return write_tar(folder / "a.tar", [(f"{n:06d}.{e}", b"x") for n in range(count) for e in ("png", "txt")])

    assert per_sample(as_jsonl) < 10
    assert per_sample(as_csv) < 10
    assert per_sample(as_parquet) < 1
    assert per_sample(as_classes) < 8 + len("a/000000.png") + 2
    assert per_sample(as_tars) < 16 + len("000000") + 2 * 18 + 2


HEADLESS = {
    "captions and paths": "a dog, at night\timages/p0.png\na cat\timages/p1.png\n",
    "paths alone in their folder": "a dog\tp0.png\na cat\tp1.png\n",
    "addresses of this machine": "a dog\tfile://{folder}/images/p0.png\na cat\tfile://{folder}/images/p1.png\n",
}


@pytest.mark.parametrize("ending", ["tsv", "csv"])
@pytest.mark.parametrize("case", HEADLESS)
def test_a_first_line_that_is_a_row_is_never_taken_for_names(tmp_path, case, ending):
    images = picture_table(tmp_path)
    path = tmp_path / f"t.{ending}"
    path.write_text(HEADLESS[case].format(folder=tmp_path))
    with pytest.raises(DataError, match=r"first line is a row, not names of columns: .*p0\.png; .*`columns`"):
        opened(path)
    source = opened(path, columns="caption,image")["train"]
    pairs = everything(source)
    assert [pair.image for pair in pairs] == images[:2]
    assert [pair.captions for pair in pairs] == [(line.split("\t")[0],) for line in HEADLESS[case].splitlines()]
    assert source.identity()["records"]["columns"] == "caption,image"
    assert opened(path, columns=("caption", "image"))["train"].identity() == source.identity()


def test_names_that_are_given_must_fit_the_first_line(tmp_path):
    images = picture_table(tmp_path)
    path = tmp_path / "t.tsv"
    path.write_text("a dog\timages/p0.png\ntwo\tcells\tmore\n")
    good, bad = everything(opened(path, columns="text,file")["train"])
    assert (good.captions, good.image) == (("a dog",), images[0])
    assert (bad.source, bad.reason, bad.detail) == ("t.tsv row 2", "ragged row", "3 cells, columns are 2")
    with pytest.raises(DataError, match=r"first line has 2 cells, columns are 3; .*`columns`"):
        opened(path, columns="text,file,x")
    path.write_text("image,caption\nimages/p0.png,a dog\n")
    with pytest.raises(DataError, match="first line has 1 cells"):
        opened(path, columns="image,caption")
    with pytest.raises(DataError, match="names these columns itself; leave out `columns`"):
        opened(path.rename(tmp_path / "t.csv"), columns="caption,image")
    for wrong in ("image,,caption", "image,image"):
        with pytest.raises(ValueError, match=r"no name|two columns"):
            opened(tmp_path / "t.csv", columns=wrong)


def test_addresses_without_a_header_are_told_what_they_are(tmp_path):
    (tmp_path / "t.tsv").write_text("a very typical bus station\thttp://lh6.example/x\nanother\thttp://a.example/y\n")
    with pytest.raises(DataError, match="first line is a row"):
        opened(tmp_path)
    with pytest.raises(ConfigError, match="img2dataset"):
        opened(tmp_path, columns="caption,url")
    (tmp_path / "t.tsv").write_text("a very typical bus station\t17\nanother\t18\n")
    with pytest.raises(ConfigError, match="these look like a row: name the columns of a CSV with `columns`"):
        opened(tmp_path)
