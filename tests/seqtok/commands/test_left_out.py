"""What `seqtok data prepare` and its dry run say of what becomes no sample."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.shards.shard_set import open_shards
from data_pipelines.sources.derived.cut import keep_in_all, parse_condition, split_by_name
from data_pipelines.sources.records import Fields
from data_pipelines.sources.tar_source import tar_source
from seqtok.commands.data.plan import left_out
from tests.data_pipelines.toy import file_bytes, foreign_members, picture, write_tar
from tests.seqtok.commands.test_commands import seqtok

DAMAGED = "shard train-1.tar is damaged and left out with all its samples"


def tars(folder: Path) -> list[Path]:
    """A good one with litter, and a damaged one."""
    good = write_tar(folder / "train-0.tar", [("._0.jpg", b"x"), *foreign_members(0, 12), (".DS_Store", b"x")])
    bad = write_tar(folder / "train-1.tar", foreign_members(12, 3))
    bad.write_bytes(bad.read_bytes()[:3000])
    return [good, bad]


def test_shards_and_litter_are_named_whatever_the_source_is_wrapped_in(tmp_path: Path) -> None:
    source = tar_source(tars(tmp_path), Fields(), "skip")
    sources = [{"train": source}, keep_in_all({"train": source}, [parse_condition("year>=2000")])]
    for found in sources:
        lines = list(left_out(found))
        assert "train: 2 left aside: litter of a system" in lines
        assert f"train: {DAMAGED}" in lines
    for split, part in split_by_name(source, {"val": 0.5}).items():
        assert f"{split}: {DAMAGED}" in list(left_out({split: part}))
    assert list(left_out({"train": tar_source(tars(tmp_path)[:1], Fields())})) == [
        "train: 2 left aside: litter of a system"
    ]


def test_prepare_and_its_dry_run_name_them(tmp_path: Path, capsys) -> None:
    tars(tmp_path / "in")
    for extra in (["--dry-run"], []):
        words = ["--size", 16, "--on-bad-shard", "skip", *extra]
        status, out, err = seqtok(capsys, "data", "prepare", tmp_path / "in", tmp_path / "out", *words)
        assert status == 0, err
        assert DAMAGED in out
        assert "litter of a system" in out
    status, _, err = seqtok(capsys, "data", "prepare", tmp_path / "in", tmp_path / "other", "--size", 16)
    assert status != 0
    assert "train-1.tar" in err


def test_who_reads_them_as_they_are_is_told(tmp_path: Path, caplog) -> None:
    tars(tmp_path)
    shards = open_shards(tmp_path, "train", on_bad_shard="skip")
    assert len(shards) == 12
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("left out with all its samples: ")
    assert "train-1.tar" in told


def test_how_odd_tables_are_read_is_said(tmp_path: Path, capsys) -> None:
    lines = [f"p{n % 3}.png\t" + ('"Hello' if n == 1 else f"no {n}") for n in range(6)]
    (tmp_path / "t.tsv").write_text("\n".join(["file_name\tcaption", *lines]))
    for n in range(3):
        (tmp_path / f"p{n}.png").write_bytes(file_bytes(picture(n)))
    said = ["train: quoting is none: a quote is a character", "train: 6 rows make 3 samples: rows of one picture"]
    for extra in (["--dry-run"], []):
        status, out, err = seqtok(capsys, "data", "prepare", tmp_path / "t.tsv", tmp_path / "out", "--size", 16, *extra)
        assert status == 0, err
        assert all(line in out for line in said)
    assert "shortest first" in (tmp_path / "out/dataset.json").read_text()
    words = ["--quoting", "none", "--group", "none", "--split-field", "", "--max-bad-share", 0.9]
    status, out, err = seqtok(capsys, "data", "prepare", tmp_path / "t.tsv", tmp_path / "two", "--size", 16, *words)
    assert status == 0, err
    assert "6 rows make" not in out
