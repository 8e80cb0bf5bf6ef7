"""Foreign tars are read by the rules of preparing: what is bad is counted, named and limited, by all who read."""

from __future__ import annotations

import warnings
from itertools import islice
from pathlib import Path

import pytest

from data_pipelines.looking.contact_sheet import contact_sheet
from data_pipelines.looking.inspect import overview
from data_pipelines.reading.image_text import ImageTextLoader, read_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.vocabulary import token_lengths, train_vocabulary
from data_pipelines.shards.shard_set import open_shards
from seqtok_core.foundation.errors import DataError
from tests.data_pipelines.toy import foreign_members, vocabulary, write_tar
from tests.seqtok.commands.test_commands import seqtok

TOKENIZER = vocabulary()
GOOD = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """8 good samples; one without a picture, one whose record is none, two on one key of webdataset."""
    picture = foreign_members(0, 1)[0][1]
    bad = [("a.txt", b"no picture"), ("b.jpg", picture), ("b.txt", b"caf\xe9"), ("c.7.jpg", picture), ("c.7.txt", b"x")]
    bad += [("c.8.jpg", picture), ("c.8.txt", b"y")]
    write_tar(tmp_path / "d/train-0.tar", [*foreign_members(0, GOOD), *bad])
    return tmp_path / "d"


COUNTS = r"split 'train': 4 of 12 samples are bad \(dots in the name: 2, no picture: 1, KEY\.txt is not UTF-8: 1\)"


def loader(folder: Path, **config) -> ImageTextLoader:
    return ImageTextLoader(folder, "train", TOKENIZER, LoaderConfig(**config), seed=0, global_batch=4)


def test_in_training_they_are_an_error_that_names_them(folder: Path):
    message = COUNTS + r"; first: train-0\.tar:a \(no picture: .*`prepare\(\)`.*; `on_bad_sample=skip`"
    with pytest.raises(DataError, match=message):
        loader(folder)


def test_skipped_they_are_named_and_limited_together_with_damaged_pictures(folder: Path):
    with pytest.warns(UserWarning, match=COUNTS + r" and left out: train-0\.tar:a .*:b .*:c\.7 .*:c\.8 "):
        reader = loader(folder, on_bad_sample="skip", max_bad_share=4 / 12)
    seen = {key for batch in islice(reader.iterate(), 4) for key in batch.keys}
    assert seen == {f"k{n}" for n in range(GOOD)}
    assert len(reader.shards) == GOOD
    with pytest.raises(DataError, match=COUNTS + r".*allowed share: 0\.3; .*`max_bad_share`"):
        loader(folder, on_bad_sample="skip", max_bad_share=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = loader(folder, on_bad_sample="skip", max_bad_share=0.34)
        with pytest.raises(DataError, match=r"5 samples of 12 cannot be used, which is above max_bad_share=0\.34"):
            reader.bad.count(["train-0.tar:k1: damaged image"])


READERS = {
    "open": lambda folder, share: open_shards(folder, "train", max_bad_share=share),
    "inspect": lambda folder, share: overview(folder, max_bad_share=share),
    "sheet": lambda folder, share: contact_sheet(folder, folder / "x.png", max_bad_share=share),
    "text": lambda folder, share: train_vocabulary(folder, 300, max_bad_share=share),
    "lengths": lambda folder, share: token_lengths(folder, TOKENIZER, max_bad_share=share),
}


@pytest.mark.parametrize("read", READERS)
def test_whoever_reads_counts_and_limits_them(folder: Path, read: str):
    with pytest.raises(DataError, match=COUNTS):
        READERS[read](folder, 0.02)
    with pytest.warns(UserWarning, match=COUNTS):
        READERS[read](folder, 0.5)


def test_more_than_five_are_counted_not_shown(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", [*foreign_members(0, 2), *((f"x{n}.txt", b"x") for n in range(7))])
    with pytest.warns(UserWarning, match=r"7 of 9 samples are bad .*x4 \(no picture: members \['txt'\]\) and 2 more"):
        open_shards(tmp_path, "train", max_bad_share=1.0)


def test_nothing_is_said_where_nothing_is_bad(tmp_path: Path):
    write_tar(tmp_path / "train-0.tar", foreign_members(0, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_split(tmp_path, "train", TOKENIZER)) == 4


def test_commands_say_it_with_their_options(folder: Path, capsys: pytest.CaptureFixture[str]):
    for command in ("inspect", "text"):
        status, _, err = seqtok(capsys, "data", command, folder)
        assert status == 1
        assert "--max-bad-share" in err
        assert "`" not in err.replace("`seqtok data prepare DATA OUT`", "")
        with pytest.warns(UserWarning, match="4 of 12 samples are bad"):
            status, _, err = seqtok(capsys, "data", command, folder, "--max-bad-share", 0.5)
        assert status == 0, err
