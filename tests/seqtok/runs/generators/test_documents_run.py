"""Training on documents through the service: continued to the same bits, watched on held-out ones, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ar_model import SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.documents import read_documents
from data_pipelines.scenes import make_scene, render
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import open_shards
from seqtok.export.run import export_latents
from seqtok.runs.base import AssumedData
from seqtok.runs.generators.documents import DocumentsRun, begun
from seqtok.runs.kinds import load_kind
from seqtok.runs.train import train_run
from seqtok_core.foundation.errors import MismatchError
from tests.seqtok.commands.test_checkpoint_commands import content, make_data
from tests.seqtok.commands.test_commands import TINY, save_tokenizer, seqtok


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of an untrained tokenizer, and documents of two of their pictures each."""
    root = tmp_path_factory.mktemp("documents")
    data = make_data(root / "scenes", 64)
    export_latents(save_tokenizer(root / "tokenizer", data), data, root / "latents")
    shards = open_shards(root / "latents", "train", kind="latents")
    with open(root / "documents.jsonl", "w") as stream:
        for number in range(0, 64, 2):
            one, other = shards.record(number), shards.record(number + 1)
            parts = [one.captions[0], {"image": one.key}, {"image": other.key}, other.captions[-1]]
            stream.write(json.dumps({"key": one.key, "parts": parts}) + "\n")
    return root


def run_of(root: Path, out: Path, *words: str) -> DocumentsRun:
    own = [f"data.folder={root / 'latents'}", f"data.documents={root / 'documents.jsonl'}", f"out={out}"]
    return load_kind(DocumentsRun, TINY / "tiny-documents.yaml", [*own, *words])


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shown and validated on its way."""
    out = tmp_path_factory.mktemp("run") / "run"
    words = [f"tokenizer={root / 'tokenizer'}", "train.sample_every=160", "validation.every=160"]
    held_out = [f"validation.documents={root / 'documents.jsonl'}", "validation.split=train", "validation.samples=20"]
    train_run(run_of(root, out, "train.keep=9", "train.log_every=1", *words, *held_out))
    return out


def test_it_is_continued_to_the_same_bits(root: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000020")
    words = [f"tokenizer={root / 'tokenizer'}", "train.sample_every=160", "train.keep=9"]
    train_run(run_of(root, tmp_path / "run", "train.log_every=1", *words))
    assert content(tmp_path / "run" / "model") == content(trained / "model")
    whole = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert whole[-1]["loss"] < whole[0]["loss"]


def test_it_shows_and_judges_what_it_draws_on_the_way(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "validation.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [160, 320]
    assert {"loss", "flow_loss", "text_loss"} <= rows[0].keys()
    sheets = sorted(trained.rglob("images_*.png"))
    assert len(sheets) == 2
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > 3 * 32, "the picture before, the drawn one and the real one side by side"


def test_what_is_asked_for_is_a_document_up_to_its_last_picture(root: Path) -> None:
    captions = CaptionTokenizer.load(root / "latents" / "captions.model")
    batch = read_documents(root / "latents", "train", root / "documents.jsonl", captions, 1)
    shards = open_shards(root / "latents", "train", kind="latents")
    parts, last = begun(batch, 0, captions)
    assert parts[0] == shards.record(0).captions[0]
    assert len(parts) == 2
    assert torch.equal(torch.as_tensor(parts[1]), batch.latents[0, 0])
    assert torch.equal(last, batch.latents[0, 1])


def test_a_document_is_gone_on_with_on_the_command_line(root: Path, trained: Path, capsys, tmp_path: Path) -> None:
    picture, out = tmp_path / "one.png", tmp_path / "next.png"
    Image.fromarray(render(make_scene(0, 5), 32)).save(picture)
    asked = ["generator", "continue", trained / "model", root / "tokenizer", picture, "a red circle"]
    status, printed, err = seqtok(capsys, *asked, "--out", out, "--drawings", 3, "--seed", 2, "--json")
    assert status == 0, err
    found = json.loads(printed)
    assert found["parts"] == [{"image": str(picture)}, "a red circle"]
    assert found["model_id"] == SeqGenerator.from_pretrained(trained / "model").model_id
    first = out.read_bytes()
    assert seqtok(capsys, *asked, "--out", out, "--drawings", 3, "--seed", 2)[1].strip() == str(out)
    assert out.read_bytes() == first
    status, printed, err = seqtok(capsys, *asked[:-1], "--write", "--drawings", 2, "--temperature", 1.0)
    assert status == 0, err
    assert len(printed.splitlines()) == 2
    for words, message in [
        ([tmp_path / "none.png"], "none.png: no such picture"),
        ([""], "a part is empty"),
        (["a circle", "--write", "--guidance", 2], "are for drawing"),
        (["a circle", "--beams", 2], "--beams is for texts"),
    ]:
        status, _, err = seqtok(capsys, *asked[:4], *words)
        assert status != 0
        assert message in err
        assert "Traceback" not in err


def test_a_plan_is_made_with_and_without_the_data(root: Path, capsys, tmp_path: Path) -> None:
    words = [f"data.folder={root / 'latents'}", f"data.documents={root / 'documents.jsonl'}", f"out={tmp_path}"]
    status, printed, err = seqtok(capsys, "plan", TINY / "tiny-documents.yaml", *words, "--steps", 1)
    assert status == 0, err
    assert "no data read" not in printed
    work = load_kind(DocumentsRun, TINY / "tiny-documents.yaml", words).workload(AssumedData(), 4)
    pictures = read_manifest(root / "latents").splits["train"].samples
    assert work.samples == 32
    few = tmp_path / "few.jsonl"
    few.write_text("".join((root / "documents.jsonl").read_text().splitlines(True)[:8]))
    less = load_kind(DocumentsRun, TINY / "tiny-documents.yaml", [*words, f"data.documents={few}"])
    assert less.workload(AssumedData(), 4).cache_bytes == work.cache_bytes
    spec = read_manifest(root / "latents").latent_spec or {}
    assert work.cache_bytes == 4 * spec["length"] * spec["dim"] * pictures, "the whole split is kept, once"
    assumed = load_kind(DocumentsRun, TINY / "tiny-documents.yaml", []).workload(AssumedData(None, (16, 8), 1000), 4)
    assert assumed.samples == 1000
    assert assumed.batch(3).latents.shape == (3, 3, 16, 8)
    assert "random latents, 2 pictures in each document" in " ".join(assumed.notes)


def test_held_out_latents_of_another_tokenizer_are_refused(root: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path / "scenes", 16)
    other = save_tokenizer(tmp_path / "tokenizer", data, seed=5)
    export_latents(other, data, tmp_path / "latents")
    words = ["validation.every=160", f"validation.documents={root / 'documents.jsonl'}"]
    run = run_of(root, tmp_path / "run", *words, f"validation.folder={tmp_path / 'latents'}", "validation.split=train")
    with pytest.raises(MismatchError, match="comes from tokenizer"):
        run.hooks()


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 3])
def test_two_processes_follow_one(root: Path, trained: Path, zero: int, tmp_path: Path) -> None:
    own = [f"data.folder={root / 'latents'}", f"data.documents={root / 'documents.jsonl'}", f"out={tmp_path / 'two'}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", "localhost:0", "-m", "seqtok", "train", str(TINY / "tiny-documents.yaml")]
    words = [*own, f"train.zero_stage={zero}", "train.log_every=1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    train_run(run_of(root, tmp_path / "one", "train.log_every=1"))
    one, two = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == 20
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 2e-3
