"""A tokenizer with a codebook exports its codes beside its latents, in every form, and the reader hands them out."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.looking.verify import verify_folder
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.latent_text import LatentTextLoader, read_latents
from data_pipelines.reading.loader import ReadConfig
from data_pipelines.shards import latents as latent_shards
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer import LatentSpec, SeqTokenizer
from seqtok.export.config import ExportConfig
from seqtok.export.encode import ShardEncoder
from seqtok.export.run import export_tokens
from seqtok_core.foundation.errors import DataError
from tests.seqtok.export.toy import COUNTS, LENGTH, PER_SHARD, content, saved_tokenizer, scenes

KINDS: dict[str, dict[str, Any]] = {
    "vq": {"codebook_size": 32},
    "fsq": {"levels": [5, 4, 3]},
    "residual_vq": {"codebook_size": 16, "quantizers": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("codes") / "scenes")


@pytest.fixture(scope="module")
def models(data: Path) -> dict[str, Path]:
    return {
        kind: saved_tokenizer(data.parent / kind, data, bottleneck={"kind": kind, **settings})
        for kind, settings in KINDS.items()
    }


@pytest.fixture(scope="module")
def residual(models: dict[str, Path], data: Path) -> Path:
    return run(models["residual_vq"], data, data.parent / "latents")


def run(model: Path, data: Path, out: Path, **settings: Any) -> Path:
    export_tokens(model, data, out, ExportConfig.parse(settings))
    return out


@torch.no_grad()
def expected(model: Path, data: Path, split: str = "train") -> torch.Tensor:
    pixels = read_split(data, split, CaptionTokenizer.load(data / "captions.model")).pixels()
    return SeqTokenizer.from_pretrained(model).encode_codes(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_come_back_in_every_form(kind: str, models: dict[str, Path], data: Path, tmp_path: Path):
    model, words = models[kind], CaptionTokenizer.load(data / "captions.model")
    codes = expected(model, data)
    shards = run(model, data, tmp_path / "shards")
    batch = read_latents(shards, "train", words)
    assert batch.codes is not None
    assert torch.equal(batch.codes, codes)
    tokenizer = SeqTokenizer.from_pretrained(model)
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.bottleneck.look_up(batch.codes), batch.latents, atol=2e-3, rtol=2e-3)
    rows = pq.read_table(run(model, data, tmp_path / "l.parquet", splits=("train",)))
    assert rows.column_names == ["key", "split", "captions", "latents", "codes"]
    assert np.array_equal(np.asarray(rows["codes"].to_pylist()), codes.flatten(1).numpy())
    assert rows.schema.metadata[b"codes_shape"].decode() == " ".join(map(str, codes.shape[1:]))
    assert rows.schema.metadata[b"codebook_size"].decode() == str(tokenizer.spec.codebook_size)
    folder = run(model, data, tmp_path / "numpy", format="numpy")
    arrays = [np.load(path) for path in sorted(folder.glob("*_latents-train-*.codes.npy"))]
    assert arrays[0].dtype == np.int32
    assert np.array_equal(np.concatenate(arrays), codes.numpy())
    for out in (shards, folder, run(model, data, tmp_path / "parquet", format="parquet")):
        verdict = verify_folder(out)
        assert (verdict.problems, verdict.samples) == ([], sum(COUNTS.values()))


@pytest.mark.parametrize("config", [ReadConfig(), ReadConfig(cache=False)])
def test_batches_have_the_codes_of_their_latents(config: ReadConfig, residual: Path, models, data: Path):
    codes = expected(models["residual_vq"], data)
    words = CaptionTokenizer.load(data / "captions.model")
    loader = LatentTextLoader(residual, "train", words, config, seed=3, global_batch=8)
    for batch in islice(loader.iterate(0), 5):
        assert batch.codes is not None
        assert batch.codes.dtype == torch.int64
        assert torch.equal(batch.codes, codes[batch.index])
    spec = LatentSpec.from_json(loader.latent_spec)
    assert (spec.codebook_size, spec.codes_per_token) == (16, 2)


@pytest.mark.slow
def test_who_encodes_changes_no_byte(residual: Path, models: dict[str, Path], data: Path, tmp_path: Path):
    assert content(run(models["residual_vq"], data, tmp_path / "l", processes=2)) == content(residual)


def test_a_tokenizer_without_codebook_exports_what_it_did(data: Path, tmp_path: Path):
    model = saved_tokenizer(tmp_path / "rms", data)
    out = run(model, data, tmp_path / "l")
    manifest = read_manifest(out)
    assert set(manifest.source) == {"latents", "shape", "name", "check"}
    assert manifest.latent_spec is not None
    assert set(manifest.latent_spec) == {
        *("length", "dim", "mean", "std", "tokenizer_id", "groups", "codebook_size"),
    }
    assert pq.read_table(run(model, data, tmp_path / "l.parquet")).column_names[-1] == "latents"
    assert read_latents(out, "train", CaptionTokenizer.load(data / "captions.model")).codes is None


def test_codes_that_no_codebook_has_are_found(models: dict[str, Path], data: Path, tmp_path: Path, monkeypatch):
    """In shards by the writer, in what a faulty writer left by verify and by the reader, in tables by verify."""
    whole_shard = ShardEncoder.encode

    def spoiled(self, *arguments):
        found = whole_shard(self, *arguments)
        found.codes[1, 0] = 99
        return found

    monkeypatch.setattr(ShardEncoder, "encode", spoiled)
    with pytest.raises(DataError, match=r"test-00000001: codes from \d+ to 99"):
        run(models["vq"], data, tmp_path / "refused")
    for form in ("numpy", "parquet"):
        problems = verify_folder(run(models["vq"], data, tmp_path / form, format=form)).problems
        assert len(problems) == sum(-(-count // PER_SHARD) for count in COUNTS.values())
        assert all("to 99, the codebook has entries 0 to 31" in problem for problem in problems)
    monkeypatch.setattr(latent_shards.CodeLayout, "check", lambda *_: None)
    out = run(models["vq"], data, tmp_path / "shards")
    monkeypatch.undo()
    assert any("test-00000001: codes from" in problem for problem in verify_folder(out).problems)
    with pytest.raises(DataError, match="to 99, the codebook has entries 0 to 31"):
        read_latents(out, "test", CaptionTokenizer.load(data / "captions.model"))


def test_a_damaged_size_is_one_message(residual: Path, data: Path, tmp_path: Path):
    for name, blob in content(residual).items():
        (tmp_path / name).write_bytes(blob)
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    manifest["latent_spec"]["codes_per_token"] = "two"
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"dataset\.json: the size of the codebook is damaged"):
        read_latents(tmp_path, "train", CaptionTokenizer.load(data / "captions.model"))
    assert manifest["latent_spec"]["length"] == LENGTH
