"""A user's mistake is one message on stderr and a non-zero exit, never a traceback; nothing is overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seq_tokenizer import SeqTokenizer, TokenizerConfig
from seqtok import cli
from seqtok.export.run import export_latents
from seqtok.runs.base import TrainingRun
from seqtok.runs.kinds import load_run
from seqtok.runs.settings import shipped_configs
from seqtok_core.foundation.errors import ConfigError

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "configs"


def seqtok(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of the command line in this process."""
    before = sys.argv
    sys.argv = ["seqtok", *(str(word) for word in words)]
    try:
        cli.main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    sources = {"train": ScenesSource("train", 60, 32), "test": ScenesSource("test", 20, 32)}
    prepare(sources, folder, PrepareConfig(name="scenes", size=32, samples_per_shard=25))
    train_vocabulary(folder, 400)
    return folder


def save_tokenizer(folder: Path, data: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    text = {
        "vocab_size": CaptionTokenizer.load(data / "captions.model").vocab_size,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "embed_dim": 8,
    }
    shape = {"image_size": 32, "patch_size": 8, "num_latents": 4, "latent_dim": 4, "width": 32, "heads": 2}
    config = TokenizerConfig.parse({**shape, "encoder_layers": 1, "decoder_layers": 1, "text": text})
    SeqTokenizer(config).save_pretrained(folder, data / "captions.model")
    return folder


@pytest.fixture(scope="module")
def tokenizer(data: Path) -> Path:
    return save_tokenizer(data.parent / "tokenizer", data)


def test_shipped_configs_are_valid_and_say_what_they_cost():
    shipped = shipped_configs()
    assert {"demo", "demo-tokenizer", "demo-generator"} <= shipped.keys()
    for name, file in shipped.items():
        head = [line for line in file.read_text().splitlines() if line.startswith("#")]
        assert "seqtok" in head[0], name
        assert any("Cost" in line for line in head), name
        assert any("Expect" in line for line in head), name
        run = load_run(name)
        assert file.parent.name == run.kind
        if isinstance(run, TrainingRun):
            parameters, _ = run.parameters()  # on the meta device: none of them needs this machine's memory
            assert parameters > 10_000, name


def test_names_of_shipped_configs_are_theirs_alone():
    files = list((ROOT / "configs").rglob("*.yaml"))
    assert len(files) == len(shipped_configs()) == len({file.stem for file in files})


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["tokenizer", "train", "no-such-config"], 2, "no such config"),
        (["tokenizer", "train", "demo-tokenizr"], 2, "did you mean demo-tokenizer?"),
        (["tokenizer", "train", "demo-tokenizer", "train.imagse=3"], 2, "did you mean train.images?"),
        (["tokenizer", "train", "demo-tokenizer", "train.images=many"], 2, "train.images"),
        (["tokenizer", "train", "demo-tokenizer", "model.patch_size=7"], 2, "does not divide"),
        (["tokenizer", "train", "demo-tokenizer", "oops"], 2, "key=value"),
        (["tokenizer", "train", "demo-generator"], 2, "needs kind: tokenizer"),
        (["tokenizer", "train", "demo-tokenizer", "data.folder=/no/such", "out=/tmp/x"], 1, "/no/such"),
        (["tokenizer", "export", "/no/model", "/no/data", "/tmp/x"], 1, "no such model folder"),
        (["data", "inspect", "/no/such"], 1, "/no/such"),
        (["report", "/no/such"], 1, "/no/such"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(capsys, words: list[str], status: int, message: str):
    got, _, err = seqtok(capsys, *words)
    assert got == status
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: tokenizer\nkind: tokenizer\n", "duplicate|Duplicate|found"),
        (
            "kind: !!python/object/apply:os.system ['true']\n",
            "could not determine a constructor|not readable",
        ),
        ("kind: ${oc.env:HOME}\n", "interpolation"),
        ("- 1\n- 2\n", "mapping|not readable"),
        ("kind: painter\n", "choose one of"),
    ],
)
def test_a_hostile_config_is_refused(tmp_path: Path, text: str, message: str):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_run(file)


def test_numbers_like_1e_3_are_numbers():
    assert load_run("demo-tokenizer", ["train.lr=1e-3"]).train.lr == 0.001


def test_export_continues_and_equals_the_model(capsys, data: Path, tokenizer: Path, tmp_path: Path):
    out = tmp_path / "latents"
    assert seqtok(capsys, "tokenizer", "export", tokenizer, data, out)[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.name != "run.lock"}
    (out / "dataset.json").unlink()
    next(out.glob("*train-000001.tar")).unlink()
    assert seqtok(capsys, "tokenizer", "export", tokenizer, data, out)[0] == 0
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.name != "run.lock"} == before


def test_foreign_latents_are_refused_by_name(capsys, data: Path, tokenizer: Path, tmp_path: Path):
    other = save_tokenizer(tmp_path / "other", data, seed=1)
    out = tmp_path / "latents"
    export_latents(tokenizer, data, out)
    status, _, err = seqtok(
        capsys, "generator", "train", TINY / "tiny-generator.yaml", f"data.folder={out}", f"tokenizer={other}",
        f"out={tmp_path / 'run'}",
    )  # fmt: skip
    assert status == 1
    for name in (tokenizer, other):
        assert SeqTokenizer.from_pretrained(name).tokenizer_id in err


def test_a_used_output_folder_is_refused(capsys, data: Path, tokenizer: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    for words in (
        ["tokenizer", "export", tokenizer, data, tmp_path],
        ["demo", "--config", TINY / "tiny.yaml", "--out", tmp_path, "--overwrite"],
        ["data", "scenes", tmp_path, "--train", 3, "--val", 0, "--test", 0],
        ["tokenizer", "train", TINY / "tiny-tokenizer.yaml", f"data.folder={data}", f"out={tmp_path}"],
    ):
        status, _, err = seqtok(capsys, *words)
        assert status != 0
        assert str(tmp_path) in err
        assert "Traceback" not in err
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_embeddings_are_those_of_the_chosen_prefix(capsys, data: Path, tokenizer: Path, tmp_path: Path):
    out = tmp_path / "embeddings.parquet"
    words = [
        "tokenizer",
        "export",
        tokenizer,
        data,
        out,
        "--what",
        "embeddings",
        "--prefix",
        2,
        "--split",
        "test",
    ]
    assert seqtok(capsys, *words)[0] == 0
    table = pq.read_table(out)
    assert table.schema.metadata[b"prefix"] == b"2"
    assert len(table) == 20
    from data_pipelines.reading.image_text import read_split

    model = SeqTokenizer.from_pretrained(tokenizer)
    batch = read_split(data, "test", CaptionTokenizer.load(data / "captions.model"))
    with torch.no_grad():
        expected = model.prefix_embeddings(model.encode(batch.pixels(), 2))[:, 1]
    assert table["key"].to_pylist() == batch.keys
    torch.testing.assert_close(torch.tensor(table["embedding"].to_pylist()), expected, atol=1e-5, rtol=1e-4)
    written = out.read_bytes()
    status, said, _ = seqtok(capsys, *words)  # the same again is no fault
    assert (status, "finished already" in said) == (0, True)
    assert seqtok(capsys, *words, "--resume", "never")[0] == 1
    assert seqtok(capsys, *words[:-1], "train")[0] == 1  # another one does not take its place
    assert out.read_bytes() == written
    assert seqtok(capsys, *words[:-4], "--prefix", 9, "--overwrite")[0] == 2


def test_reconstruct_writes_a_picture(capsys, tokenizer: Path, tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (40, 50), "red").save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    status, out, _ = seqtok(
        capsys, "tokenizer", "reconstruct", tokenizer, tmp_path / "a.png", "--out", tmp_path / "o.png"
    )
    assert status == 0
    assert Image.open(out.splitlines()[-1]).size[0] > 96
    status, _, err = seqtok(capsys, "tokenizer", "reconstruct", tokenizer, tmp_path / "broken.jpg")
    assert status == 1
    assert "broken.jpg" in err


def test_dry_run_writes_nothing(capsys, data: Path, tmp_path: Path):
    words = [TINY / "tiny-tokenizer.yaml", f"data.folder={data}", f"out={tmp_path / 'run'}", "--dry-run"]
    status, out, _ = seqtok(capsys, "tokenizer", "train", *words)
    assert status == 0
    assert "would train" in out
    assert not (tmp_path / "run").exists()


def test_show_prints_what_validate_accepts(capsys, tmp_path: Path):
    _, out, _ = seqtok(capsys, "config", "show", "demo-tokenizer", "train.batch=32")
    values = yaml.safe_load(out)
    assert values["train"]["batch"] == 32
    (tmp_path / "shown.yaml").write_text(out)
    assert seqtok(capsys, "config", "validate", tmp_path / "shown.yaml")[0] == 0


@pytest.mark.parametrize("config", ["demo-tokenizer", "demo-generator"])
def test_show_counts_the_parameters_of_a_preset(capsys, config: str):
    def shown(*words: str) -> float:
        last = seqtok(capsys, "config", "show", config, "data.folder=/nowhere", *words)[1].splitlines()[-1]
        assert "4096 pieces assumed" in last
        return float(last.removeprefix("# ").split(" M parameters")[0])

    tiny = shown("model.preset=tiny")
    assert tiny < shown("model.preset=tiny", "model.width=256") < shown("model.preset=S")


def test_help_is_quick_and_complete():
    done = subprocess.run([sys.executable, "-m", "seqtok", "--help"], capture_output=True, text=True, check=True)
    for command in ("demo", "config", "data", "tokenizer", "generator", "evaluate", "report"):
        assert command in done.stdout
    assert json.dumps(done.stderr) == '""'
