"""Looking at a folder and verifying it, from the library and from the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.looking.inspect import overview
from data_pipelines.looking.verify import verify_folder
from data_pipelines.reading.vocabulary import token_lengths, train_vocabulary
from data_pipelines.sources.records import Fields
from data_pipelines.tars.index import scan_tar
from seqtok.commands.data.app import app
from seqtok_core.foundation.errors import DataError, SeqtokError
from tests.data_pipelines.toy import content, foreign_members, jsonl_folder, scenes_folder, write_tar


def seqtok_data(*arguments: object) -> str:
    """Output of a command; an error of ours is raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, SeqtokError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_an_overview_counts_what_is_there(tmp_path):
    scenes_folder(tmp_path / "d", train=20)
    found = overview(tmp_path / "d")
    assert (found.own, found.kind, found.image_size, found.levels) == (True, "images", 16, 4)
    assert {part.split: (part.samples, part.shards) for part in found.splits} == {
        "test": (20, 3),
        "train": (20, 3),
    }
    assert found.splits[1].captions_per_sample == {4: 20}
    words = [level.words.mean for level in found.splits[1].levels]
    assert words == sorted(words)


def test_foreign_tars_have_an_overview_too(tmp_path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 5))
    found = overview(tmp_path, Fields(labels=("group",)))
    assert (found.own, found.levels, found.splits[0].classes) == (False, 2, {"group": 4})


def test_whole_folders_verify(tmp_path):
    scenes_folder(tmp_path / "d", train=20)
    verdict = verify_folder(tmp_path / "d")
    assert (verdict.shards, verdict.samples, verdict.problems) == (6, 40, [])
    with pytest.raises(DataError, match="no such folder"):
        verify_folder(tmp_path / "nowhere")


def test_one_flipped_bit_is_found(tmp_path):
    scenes_folder(tmp_path / "d", train=20)
    tar = tmp_path / "d/scenes-train-000001.tar"
    data = bytearray(tar.read_bytes())
    start, size = scan_tar(tar)[2].members["png"]
    data[start + size // 2] ^= 4  # inside a picture: every header and offset stays right
    tar.write_bytes(bytes(data))
    problems = verify_folder(tmp_path / "d", decode=False).problems
    assert len(problems) == 1
    assert "scenes-train-000001.tar: content differs from its hash" in problems[0]


def test_every_fault_of_foreign_tars_is_listed(tmp_path):
    members = foreign_members(0, 4)
    members[0] = ("k0.jpg", members[0][1][:100])
    write_tar(tmp_path / "train-0.tar", members)
    write_tar(tmp_path / "train-1.tar", foreign_members(2, 4))
    cut = write_tar(tmp_path / "train-2.tar", foreign_members(9, 4))
    cut.write_bytes(cut.read_bytes()[:2000])
    text = "\n".join(verify_folder(tmp_path).problems)
    assert "train-0.tar:k0: damaged image" in text
    assert "key k2 is also in train-0.tar" in text
    assert "train-2.tar" in text
    result = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert result.exit_code == 1
    assert "train-2.tar" in result.output


def test_vocabulary_is_learned_beside_the_data_and_not_replaced_unasked(tmp_path):
    scenes_folder(tmp_path / "d", train=50)
    tokenizer = train_vocabulary(tmp_path / "d", 400)
    assert CaptionTokenizer.load(tmp_path / "d/captions.model").sha256 == tokenizer.sha256
    assert train_vocabulary(tmp_path / "d", 400).sha256 == tokenizer.sha256
    with pytest.raises(DataError, match="another captions model"):
        train_vocabulary(tmp_path / "d", 350)
    assert train_vocabulary(tmp_path / "d", 350, overwrite=True).vocab_size == 350
    lengths = token_lengths(tmp_path / "d", tokenizer)
    assert 1 < lengths.mean < lengths.p99 <= lengths.longest


def test_the_commands_from_drawing_to_verifying(tmp_path):
    sizes = ("--train", 12, "--val", 0, "--test", 6, "--size", 16, "--processes", 1)
    assert "would write split train, 12 samples in 1 shards" in seqtok_data(
        "scenes", tmp_path / "d", *sizes, "--dry-run"
    )
    assert not (tmp_path / "d").exists()
    assert "train: 12 samples" in seqtok_data("scenes", tmp_path / "d", *sizes)
    before = content(tmp_path / "d")
    seqtok_data("scenes", tmp_path / "d", *sizes)
    assert content(tmp_path / "d") == before
    with pytest.raises(DataError, match="another source or other settings"):
        seqtok_data("scenes", tmp_path / "d", *sizes, "--seed", 1)
    assert "tokens per caption" in seqtok_data("text", tmp_path / "d", "--vocab", 400)
    assert "16 px" in seqtok_data("inspect", tmp_path / "d")
    assert "all well" in seqtok_data("verify", tmp_path / "d")


def test_the_commands_import_a_folder(tmp_path):
    jsonl_folder(tmp_path / "f")
    output = seqtok_data(
        "prepare", tmp_path / "f", tmp_path / "d", "--size", 8, "--label-field", "group", "--val-share", 0.3
    )
    assert "train:" in output
    assert "val:" in output
    assert sum(part.samples for part in overview(tmp_path / "d").splits) == 12
    with pytest.raises(DataError, match="no such file or folder"):
        seqtok_data("prepare", tmp_path / "nowhere", tmp_path / "e")


def test_help_does_not_import_torch():
    program = "import sys, seqtok.commands.data.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
