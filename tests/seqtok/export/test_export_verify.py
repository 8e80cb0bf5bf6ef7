"""`seqtok data verify` on what an export wrote: latents, and tables in every form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.looking.contact_sheet import contact_sheet
from data_pipelines.looking.verify import verify_folder
from data_pipelines.shards.files import commit_shard
from data_pipelines.shards.latents import LATENT, save_array
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.tars.index import scan_tar
from seqtok.commands.data.app import app
from seqtok.export.config import ExportConfig
from seqtok.export.run import export_latents, export_tokens
from seqtok_core.foundation.errors import DataError
from tests.seqtok.export.toy import COUNTS, DIM, LENGTH, content, saved_tokenizer, scenes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("verify") / "scenes")


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    return saved_tokenizer(data.parent / "tokenizer", data)


@pytest.fixture(scope="module")
def exported(model: Path, data: Path) -> dict[str, Path]:
    """Form -> folder."""
    root = data.parent / "exported"
    export_latents(model, data, root / "latents")
    for form in ("parquet", "numpy", "webdataset"):
        settings = ExportConfig(what="embeddings", side="both", prefixes=(1, 4), format=form, splits=("test",))
        export_tokens(model, data, root / form, settings)
    return {folder.name: folder for folder in root.iterdir()}


def copied(folder: Path, out: Path) -> Path:
    out.mkdir()
    for name, blob in content(folder).items():
        (out / name).write_bytes(blob)
    return out


def with_latents(folder: Path, values: np.ndarray) -> Path:
    """The third picture of split test has other latents, and the index says so: what a faulty writer leaves."""
    manifest = read_manifest(folder)
    info = manifest.splits["test"].shards[0]
    blob = (folder / info.file).read_bytes()
    samples = []
    for row, sample in enumerate(scan_tar(folder / info.file)):
        members = {name: blob[start : start + size] for name, (start, size) in sample.members.items()}
        samples.append((sample.key, {**members, **({LATENT: save_array(values)} if row == 2 else {})}))
    changed = commit_shard(folder, info.file, samples, task="t", facts={})
    split = manifest.splits["test"].model_copy(update={"shards": (changed, *manifest.splits["test"].shards[1:])})
    manifest = manifest.model_copy(update={"splits": {**manifest.splits, "test": split}})
    (folder / "dataset.json").write_text(json.dumps(manifest.model_dump(mode="json")))
    return folder


def test_what_an_export_writes_is_whole(exported):
    pictures = sum(COUNTS.values())
    assert (verify_folder(exported["latents"]).problems, verify_folder(exported["latents"]).samples) == ([], pictures)
    for form in ("parquet", "numpy", "webdataset"):
        verdict = verify_folder(exported[form])
        assert verdict.problems == []
        assert verdict.samples == COUNTS["test"] * ((2 if form == "parquet" else 1) + 4), "two prefixes, four captions"
        shown = CliRunner().invoke(app, ["inspect", str(exported[form])])
        assert f"as {form}" in shown.stdout
    assert verify_folder(exported["parquet"], processes=2) == verify_folder(exported["parquet"])
    with pytest.raises(DataError, match="holds latents"):
        contact_sheet(exported["latents"], exported["latents"] / "s.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((LENGTH, DIM), np.nan, np.float16), "latents are not finite"),
        (np.full((LENGTH, DIM), 30, np.float16), "a latent lies 30.0 standard deviations from the mean"),
        (np.zeros((LENGTH, DIM + 1), np.float16), r"latents are float16 (4, 4) instead of float16 (4, 3)"),
        (np.zeros((LENGTH, DIM), np.float64), "latents are float64"),
    ],
)
def test_latents_that_no_export_wrote_are_found(exported, tmp_path, values, message):
    folder = with_latents(copied(exported["latents"], tmp_path / "l"), values)
    (problem,) = verify_folder(folder).problems
    assert "latents-test-000000.tar:test-00000002: " in problem
    assert message in problem


@pytest.mark.parametrize("form", ["latents", "parquet", "numpy", "webdataset"])
def test_every_damaged_file_of_an_export_is_named(exported, tmp_path, form):
    folder = copied(exported[form], tmp_path / "x")
    files = [path for path in folder.iterdir() if path.name not in ("dataset.json", "prepare.json")]
    for path in files:
        whole = path.read_bytes()
        for damage in (whole[: len(whole) // 2], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], None):
            path.unlink() if damage is None else path.write_bytes(damage)
            text = "\n".join(verify_folder(folder).problems)
            assert path.name in text, (path.name, damage is None, text)
        path.write_bytes(whole)
    assert verify_folder(folder).problems == []


def test_another_captions_model_or_tokenizer_is_named(exported, tmp_path):
    for form in ("latents", "parquet"):
        folder = copied(exported[form], tmp_path / form)
        other = CaptionTokenizer.train(["quite another text"], folder / "captions.model", 300).sha256
        assert [other in problem for problem in verify_folder(folder).problems] == [True]
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["fingerprints"]["tokenizer_id"] = "another"
    (folder / "dataset.json").write_text(json.dumps(manifest))
    assert sum("tokenizer_id differs from dataset.json" in problem for problem in verify_folder(folder).problems) == 4
