"""Documents of texts and pictures: read as they are written, cut where they are long, and bad ones named."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_pipelines.reading.documents import DocumentLoader, DocumentReadConfig, read_documents
from data_pipelines.samples import DocumentBatch
from data_pipelines.shards.latents import LatentRecord, LatentWriter
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.data_pipelines.shards.test_latents import SHAPE, SPEC, TOKENIZER, latents_of

COUNT = 10


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "latents"
    writer = LatentWriter(folder, name="latents", shape=SHAPE, plan={})
    with writer.open():
        records = [LatentRecord(key=f"p{n}", latents=latents_of(n), captions=["a circle"]) for n in range(COUNT)]
        writer.write("train", 0, records)
        writer.finish(SPEC, {"train": 1})
    return folder


def file_of(path: Path, *documents: object) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in documents))
    return path


def parts(*given: str | int) -> list[object]:
    return [part if isinstance(part, str) else {"image": f"p{part}"} for part in given]


def read(latents: Path, file: Path, **config: object) -> DocumentBatch:
    return read_documents(latents, "train", file, TOKENIZER, config=DocumentReadConfig.parse(config, "test"))


def told(batch: DocumentBatch, row: int) -> list[str | Tensor]:
    """A document as it was written, an empty text left out."""
    found: list[str | Tensor] = []
    for place in range(int(batch.rows[row])):
        text = TOKENIZER.decode([i for i in batch.text_ids[row, place].tolist() if i])
        found += [text] if text else []
        found += [batch.latents[row, place]] if place < int(batch.pictures[row]) else []
    return found


def test_a_document_comes_back_as_it_was_written(latents: Path, tmp_path: Path) -> None:
    file = file_of(
        tmp_path / "d.jsonl",
        {"key": "a", "parts": parts("a circle", 3, "a red circle", 1)},
        {"key": "b", "parts": parts(2, 2, "a circle", "a square")},
        {"parts": parts("a square")},
    )
    batch = read(latents, file, pictures=2)
    assert batch.keys == ["a", "b", "line-3"]
    assert batch.text_ids.shape[:2] == (3, 3)
    assert batch.latents.shape == (3, 3, *SHAPE)
    assert batch.rows.tolist() == [3, 3, 1], "behind the last picture a document ends"
    assert batch.pictures.tolist() == [2, 2, 0]
    picture = lambda n: torch.from_numpy(latents_of(n))  # noqa: E731
    wanted_rows: list[list[str | Tensor]] = [
        ["a circle", picture(3), "a red circle", picture(1)],
        [picture(2), picture(2), "a circle a square"],
        ["a square"],
    ]
    for row, wanted in enumerate(wanted_rows):
        found = told(batch, row)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert one == other if isinstance(other, str) else torch.equal(torch.as_tensor(one), other)


def test_long_documents_are_cut_into_pieces_that_do_not_end(latents: Path, tmp_path: Path) -> None:
    long = parts(0, "a circle", 1, 2, "a square", 3, 4, "a circle")
    file = file_of(tmp_path / "d.jsonl", {"key": "a", "parts": long})
    batch = read(latents, file, pictures=2)
    assert batch.keys == ["a", "a#1", "a#2"]
    assert batch.pictures.tolist() == [2, 2, 1]
    assert batch.rows.tolist() == [2, 2, 2], "only the last has what ends the document"
    assert [part for part in told(batch, 1) if isinstance(part, str)] == ["a square"]
    assert [part for part in told(batch, 2) if isinstance(part, str)] == ["a circle"]
    file = file_of(tmp_path / "d.jsonl", {"key": "a", "parts": long}, {"key": "a#1", "parts": long})
    keys = read(latents, file, pictures=2).keys
    assert len(set(keys)) == len(keys) == 6


def test_every_rank_and_worker_reads_its_share_of_the_same_order(latents: Path, tmp_path: Path) -> None:
    file = file_of(tmp_path / "d.jsonl", *[{"key": f"d{n}", "parts": parts(n % COUNT, "a circle")} for n in range(12)])

    def loader(rank: int = 0, world: int = 1, workers: int = 0) -> DocumentLoader:
        config = DocumentReadConfig(num_workers=workers)
        share = {"global_batch": 4, "micro_batch": 2, "rank": rank, "world": world}
        return DocumentLoader(latents, "train", file, TOKENIZER, config, seed=1, **share)

    whole = [batch.keys for batch in islice(loader().iterate(), 12)]
    assert sorted(chain(*whole[:6])) == sorted(f"d{n}" for n in range(12)), "an epoch has each of them once"
    assert whole[:6] != whole[6:12]
    ranks = [[batch.keys for batch in islice(loader(rank, 2).iterate(), 6)] for rank in range(2)]
    assert [keys for pair in zip(*ranks, strict=True) for keys in pair] == whole
    assert [batch.keys for batch in islice(loader().iterate(2), 4)] == whole[4:8]
    assert loader().samples == 12
    for one, other in zip(islice(loader(workers=1).iterate(1), 3), islice(loader().iterate(1), 3), strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.latents, other.latents)


def test_what_is_in_the_file_is_part_of_what_a_run_was_trained_on(latents: Path, tmp_path: Path) -> None:
    one, other = ({"key": "a", "parts": parts(n)} for n in (1, 2))
    named = lambda file: DocumentLoader(latents, "train", file, TOKENIZER, DocumentReadConfig(), seed=0, global_batch=1)  # noqa: E731
    first = named(file_of(tmp_path / "a.jsonl", one)).fingerprint
    assert first == named(file_of(tmp_path / "b.jsonl", one)).fingerprint
    assert first != named(file_of(tmp_path / "b.jsonl", other)).fingerprint


def test_bad_documents_are_named_and_left_out_up_to_a_limit(
    latents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = [{"key": f"d{n}", "parts": parts(n % COUNT)} for n in range(100)]
    batch = read(latents, file_of(tmp_path / "d.jsonl", *good, {"key": "bad", "parts": parts(77)}))
    assert len(batch) == 100
    assert "1 documents left out" in caplog.text
    assert "no such picture in the split: p77" in caplog.text
    bad: list[tuple[object, str]] = [
        ({"key": "x"}, 'not an object with a list of "parts"'),
        ({"key": "x", "parts": []}, "it is empty"),
        ({"key": "x", "parts": [3]}, "a part is a text or"),
        ({"key": "d1", "parts": parts(1)}, "its key has come before: d1"),
    ]
    for document, message in bad:
        file = file_of(tmp_path / "d.jsonl", good[1], document)
        with pytest.raises(DataError, match=f"d.jsonl.*1 documents cannot be used, more than 2%.*{message}"):
            read(latents, file)
    (tmp_path / "d.jsonl").write_text("{nothing\n")
    with pytest.raises(DataError, match=r"holds no document that can be used: .*d.jsonl:1 .not a JSON object"):
        read(latents, tmp_path / "d.jsonl")
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read \(No such file"):
        read(latents, tmp_path / "none.jsonl")
    (tmp_path / "d.jsonl").write_bytes(b'{"parts": ["\xff"]}')
    with pytest.raises(DataError, match="is no UTF-8"):
        read(latents, tmp_path / "d.jsonl")
    whole = file_of(tmp_path / "d.jsonl", *good).read_text()
    deep = '{"parts": ' + "[" * 200_000 + "\n"
    (tmp_path / "d.jsonl").write_text(f"\ufeff{whole}{deep}", encoding="utf-8")
    assert len(read(latents, tmp_path / "d.jsonl")) == 100, "a byte order mark is no part of the first line"
    half = '{"key": "half \\ud83d", "parts": ["half \\ud83d a circle", {"image": "p1"}]}\n'
    (tmp_path / "d.jsonl").write_text(whole + half)
    assert told(read(latents, tmp_path / "d.jsonl"), 100)[0] == "half a circle"
    file = file_of(tmp_path / "d.jsonl", *good)
    with pytest.raises(ConfigError, match="100 samples do not fill a batch of 101"):
        DocumentLoader(latents, "train", file, TOKENIZER, DocumentReadConfig(), seed=0, global_batch=101)
