"""What is exported is what the tokenizer gives, in every form; what does not belong together is refused."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.executors.progress import Progress
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.latent_text import read_latents
from data_pipelines.samples import ImageTextBatch
from data_pipelines.shards import latent_check
from data_pipelines.shards.manifest import read_manifest
from data_pipelines.shards.shard_set import open_shards
from seq_tokenizer import SeqTokenizer
from seqtok.export.config import ExportConfig
from seqtok.export.encode import Encoded, ShardEncoder
from seqtok.export.run import export_latents, export_tokens
from seqtok.export.stores import checked
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError
from tests.data_pipelines.toy import foreign_members, write_tar
from tests.seqtok.export.toy import COUNTS, DIM, EMBED, LENGTH, PER_SHARD, content, saved_tokenizer, scenes

CONFIGS = Path(__file__).parents[2] / "configs"
EMBEDDINGS = {"what": "embeddings"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("export") / "scenes")


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    return saved_tokenizer(data.parent / "tokenizer", data)


@pytest.fixture(scope="module")
def latents(model: Path, data: Path) -> Path:
    export_latents(model, data, data.parent / "latents")
    return data.parent / "latents"


def run(model: Path, data: Path, out: Path, **settings) -> Path:
    export_tokens(model, data, out, ExportConfig.parse(settings))
    return out


def whole(data: Path, split: str) -> ImageTextBatch:
    return read_split(data, split, CaptionTokenizer.load(data / "captions.model"))


@torch.no_grad()
def expected_latents(model: Path, data: Path, split: str) -> torch.Tensor:
    return SeqTokenizer.from_pretrained(model).encode(whole(data, split).pixels())


@torch.no_grad()
def expected_text(model: Path, captions: list[str]) -> torch.Tensor:
    tokenizer, words = SeqTokenizer.from_pretrained(model), CaptionTokenizer.load(model / "captions.model")
    ids = [words.encode(text) for text in captions]
    longest = max(len(row) for row in ids)
    return tokenizer.encode_text(torch.tensor([row + [0] * (longest - len(row)) for row in ids]))


def near(values, expected: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(np.asarray(values, np.float32)), expected, atol=1e-5, rtol=1e-4)


def parts(folder: Path, table: str, split: str, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"scenes_{table}-{split}-*{suffix}"))


def test_progress_tells_what_was_encoded_now_from_what_was_there(model: Path, data: Path, tmp_path: Path):
    for built in (sum(COUNTS.values()), 0):
        told: list[Progress] = []
        export_tokens(model, data, tmp_path / "l", ExportConfig(), on_progress=told.append)
        end = told[-1]
        assert end.shards_done == end.shards_begun == end.shards == len(list((tmp_path / "l").glob("*.tar")))
        assert end.samples_done == end.samples == sum(COUNTS.values())
        assert end.samples_built == built


def test_image_embeddings_hold_every_picture_at_every_prefix(model: Path, data: Path, tmp_path: Path):
    out = run(model, data, tmp_path / "out", **EMBEDDINGS, prefixes=(4, 1))
    for split, count in COUNTS.items():
        files = parts(out, "images", split, ".parquet")
        assert len(files) == -(-count // PER_SHARD), "one part per shard"
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert list(rows[0]) == ["key", "split", "prefix", "embedding"]
        assert {row["split"] for row in rows} == {split}
        tokenizer = SeqTokenizer.from_pretrained(model)
        with torch.no_grad():
            all_prefixes = tokenizer.prefix_embeddings(expected_latents(model, data, split))
        for k in (1, 4):
            chosen = [row for row in rows if row["prefix"] == k]
            assert [row["key"] for row in chosen] == whole(data, split).keys
            near([row["embedding"] for row in chosen], all_prefixes[:, k - 1])


def test_text_embeddings_hold_every_caption_once(model: Path, data: Path, tmp_path: Path):
    out = run(model, data, tmp_path / "texts.parquet", **EMBEDDINGS, side="text", splits=("test",))
    rows = pq.read_table(out).to_pylist()
    batch = whole(data, "test")
    said = [
        (key, n, text) for key, texts in zip(batch.keys, batch.captions, strict=True) for n, text in enumerate(texts)
    ]
    assert [(row["key"], row["level"], row["caption"]) for row in rows] == said
    near([row["embedding"] for row in rows], expected_text(model, [text for _, _, text in said]))
    np.testing.assert_allclose(np.linalg.norm([row["embedding"] for row in rows], axis=1), 1, atol=1e-3)


def test_all_forms_hold_the_same_embeddings(model: Path, data: Path, tmp_path: Path):
    settings = {**EMBEDDINGS, "side": "both", "prefixes": (1, 2), "splits": ("test",)}
    tables = {
        form: run(model, data, tmp_path / form, **settings, format=form) for form in ("parquet", "numpy", "webdataset")
    }
    images = [
        row
        for file in parts(tables["parquet"], "images", "test", ".parquet")
        for row in pq.read_table(file).to_pylist()
    ]
    texts = [
        row for file in parts(tables["parquet"], "texts", "test", ".parquet") for row in pq.read_table(file).to_pylist()
    ]
    arrays = [
        np.load(file, mmap_mode="r", allow_pickle=False) for file in parts(tables["numpy"], "images", "test", ".npy")
    ]
    assert np.array_equal(np.concatenate(arrays).reshape(-1, EMBED), [row["embedding"] for row in images])
    keys = [
        line for file in parts(tables["numpy"], "images", "test", ".keys.txt") for line in file.read_text().splitlines()
    ]
    assert keys == [row["key"] for row in images][::2]
    lines = [
        json.loads(line)
        for f in parts(tables["numpy"], "texts", "test", ".rows.jsonl")
        for line in f.read_text().splitlines()
    ]
    assert lines == [{name: row[name] for name in ("key", "level", "caption")} for row in texts]
    arrays = [
        np.load(file, mmap_mode="r", allow_pickle=False) for file in parts(tables["numpy"], "texts", "test", ".npy")
    ]
    assert np.array_equal(np.concatenate(arrays), [row["embedding"] for row in texts])
    for table, rows in (("images", images), ("texts", texts)):
        found = []
        for file in parts(tables["webdataset"], table, "test", ".tar"):
            with tarfile.open(file) as tar:
                found += [np.load(io.BytesIO(tar.extractfile(m).read())) for m in tar if m.name.endswith(".npy")]
        assert np.array_equal(np.concatenate(found), [row["embedding"] for row in rows])


def test_all_forms_hold_the_same_latents(model: Path, data: Path, latents: Path, tmp_path: Path):
    stored = read_latents(latents, "train", CaptionTokenizer.load(data / "captions.model"))
    expected = expected_latents(model, data, "train")
    torch.testing.assert_close(stored.latents, expected, atol=2e-3, rtol=2e-3)  # float16
    rows = pq.read_table(run(model, data, tmp_path / "l.parquet", splits=("train",))).to_pylist()
    assert [row["key"] for row in rows] == stored.keys
    assert [row["captions"] for row in rows] == stored.captions
    assert np.array_equal(np.asarray([row["latents"] for row in rows]), stored.latents.flatten(1).numpy())
    out = run(model, data, tmp_path / "n", format="numpy")
    arrays = [np.load(file, mmap_mode="r", allow_pickle=False) for file in parts(out, "latents", "train", ".npy")]
    assert arrays[0].dtype == np.float16
    assert arrays[0].shape == (PER_SHARD, LENGTH, DIM)
    assert np.array_equal(np.concatenate(arrays), stored.latents.numpy())


def test_every_file_names_what_it_comes_from(model: Path, data: Path, latents: Path, tmp_path: Path):
    known = {
        "format_version": 1,
        "tokenizer_id": SeqTokenizer.from_pretrained(model).tokenizer_id,
        "captions_sha256": CaptionTokenizer.load(data / "captions.model").sha256,
        "data": read_manifest(data).fingerprint,
    }
    for path in latents.glob("*.index.json"):
        assert json.loads(path.read_text())["facts"]["fingerprints"] == known
    assert known.items() <= json.loads((latents / "dataset.json").read_text())["source"]["latents"].items()
    out = run(model, data, tmp_path / "out", **EMBEDDINGS, side="both")
    assert json.loads((out / "dataset.json").read_text())["fingerprints"] == known
    for path in out.glob("*.index.json"):
        assert json.loads(path.read_text())["facts"]["fingerprints"] == known
    for path in out.glob("*.parquet"):
        metadata = pq.read_schema(path).metadata
        assert {name: metadata[name.encode()].decode() for name in known} == {n: str(v) for n, v in known.items()}


def test_foreign_tars_are_exported_at_the_tokenizers_size(model: Path, tmp_path: Path):
    write_tar(tmp_path / "tars/set-train-0.tar", foreign_members(0, 5, size=24))
    write_tar(tmp_path / "tars/set-train-1.tar", foreign_members(5, 3, size=16))
    out = run(model, tmp_path / "tars", tmp_path / "n", format="numpy")
    keys = [line for file in sorted(out.glob("*.keys.txt")) for line in file.read_text().splitlines()]
    assert keys == [f"k{n}" for n in range(8)]
    out = run(model, tmp_path / "tars", tmp_path / "l")
    shards = open_shards(out, "train", kind="latents")
    assert [shards.record(n).captions for n in (0, 7)] == [("coarse 0", "fine 0"), ("coarse 1", "fine 7")]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_latents_that_are_not_finite_name_their_key(model, data, tmp_path, monkeypatch, value):
    spoil(monkeypatch, row=3, value=value)
    with pytest.raises(DataError, match=r"^test-00000003: latents are not finite"):
        run(model, data, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


def test_an_outlier_is_an_error_or_recorded(model, data, tmp_path, monkeypatch):
    """Statistics of a fresh tokenizer are mean 0, std 1: a value of 30 is 30 deviations off."""
    spoil(monkeypatch, row=3, value=30.0)
    with pytest.raises(DataError, match=r"^test-00000003: a latent lies 30\.0 standard deviations"):
        run(model, data, tmp_path / "out")
    run(model, data, tmp_path / "out2", on_outlier="warn")
    check = json.loads((tmp_path / "out2" / "dataset.json").read_text())["source"]["check"]
    assert check["largest_z"] == 30.0
    assert check["outlier_keys"][0] == "test-00000003"
    assert check["outliers"] == 1 + 4, "the fourth picture of each shard that has four"


def test_a_rare_entry_of_a_codebook_is_no_outlier():
    statistics = latent_check.Statistics(np.zeros((1, 2)), np.ones((1, 2)))
    values = np.full((1, 1, 2), 30.0, np.float32)
    far = Encoded(split="test", number=0, records=[SimpleNamespace(key="a")], values=values)
    with pytest.raises(DataError, match=r"30\.0 standard deviations"):
        checked(far, statistics, "error")
    facts = checked(replace(far, codes=np.zeros((1, 1), np.int32)), statistics, "error")
    assert facts["outliers"] == 1


@pytest.mark.parametrize("side", ["image", "text"])
def test_embeddings_that_are_not_finite_name_their_key(model, data, tmp_path, monkeypatch, side):
    broken = SeqTokenizer.prefix_embeddings if side == "image" else SeqTokenizer.encode_text

    def spoiled(self, values):
        found = broken(self, values).clone()
        found[2] = float("nan")
        return found

    monkeypatch.setattr(SeqTokenizer, broken.__name__, spoiled)
    with pytest.raises(DataError, match=r"test-0000000\d: its embedding is not finite"):
        run(model, data, tmp_path / "out", **EMBEDDINGS, side=side)


def test_drift_is_said_of_the_whole_not_of_a_shard():
    """Two shards that lie to both sides of the mean are well together; a shift of all is drift."""
    statistics = latent_check.Statistics(np.full((2, 2), 3.0), np.full((2, 2), 0.5))
    noise = np.random.default_rng(0).normal(size=(600, 2, 2)) * 0.5 + 3.0
    keys = [str(n) for n in range(300)]

    def check(*shards):
        return latent_check.summarise_checks([latent_check.measure(shard, keys, statistics) for shard in shards])

    assert not check(noise[:300] + 0.45, noise[300:] - 0.45)["drifted"]
    moved = check(noise[:300] + 0.7, noise[300:] + 0.7)
    assert moved["drifted"]
    assert moved["mean_shift"] == pytest.approx(1.4, abs=0.1)
    assert check(noise[:300] * 3 - 6, noise[300:] * 3 - 6)["std_ratio"] == pytest.approx([3, 3], abs=0.3)
    assert not check(noise[:100] + 0.7)["drifted"], "too few to say"
    whole = latent_check.summarise_checks([latent_check.measure(noise, keys + keys, statistics)])
    assert check(noise[:300], noise[300:])["std_ratio"] == pytest.approx(whole["std_ratio"], abs=1e-3)


def generator_run(latents: Path, *words: str):
    return load_kind(
        GeneratorRun, CONFIGS / "tiny-generator.yaml", [f"data.folder={latents}", "out=none", "train.batch=8", *words]
    )


def copied(latents: Path, folder: Path) -> Path:
    folder.mkdir()
    for name, data in content(latents).items():
        (folder / name).write_bytes(data)
    return folder


def test_a_swapped_captions_model_is_refused_before_the_first_step(latents: Path, tmp_path: Path):
    folder = copied(latents, tmp_path / "latents")
    generator_run(folder).build()
    was = CaptionTokenizer.load(folder / "captions.model").sha256
    other = CaptionTokenizer.train(["quite another text"], folder / "captions.model", 300).sha256
    with pytest.raises(MismatchError, match=f"{other}.*{was}"):
        generator_run(folder).build()


def test_a_tokenizers_own_captions_model_cannot_be_swapped(data: Path, tmp_path: Path):
    folder = saved_tokenizer(tmp_path / "tokenizer", data)
    was = CaptionTokenizer.load(folder / "captions.model").sha256
    other = CaptionTokenizer.train(["quite another text"], folder / "captions.model", 300).sha256
    with pytest.raises(MismatchError, match=f"{other}.*{was}"):
        run(folder, data, tmp_path / "out")


def test_a_run_is_another_one_with_another_captions_model(data: Path, tmp_path: Path):
    for text in ("a b", "c d"):
        CaptionTokenizer.train([text], tmp_path / f"{text[0]}.model", 300)
    words = [
        f"data.folder={data}",
        f"data.captions={tmp_path / 'a.model'}",
        "out=x",
        "train.batch=8",
        "model.image_size=16",
    ]
    run = load_kind(TokenizerRun, CONFIGS / "tiny-tokenizer.yaml", words)
    _, loader = run.build()
    first = run.content(loader)
    assert first == run.content(loader)
    (tmp_path / "a.model").write_bytes((tmp_path / "c.model").read_bytes())
    assert run.content(loader) != first


def test_changed_statistics_or_latents_are_refused(model: Path, latents: Path, tmp_path: Path):
    folder = copied(latents, tmp_path / "latents")
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["latent_spec"]["mean"][1][2] += 0.5
    (folder / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(MismatchError, match="statistics differ"):
        generator_run(folder, f"tokenizer={model}").build()
    manifest["latent_spec"]["mean"][1][2] += 100
    (folder / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"latents-train-000000.tar:train-.*standard deviations"):
        generator_run(folder).build()


def test_tables_are_not_mistaken_for_training_data(model: Path, data: Path, tmp_path: Path):
    out = run(model, data, tmp_path / "n", format="numpy")
    with pytest.raises(DataError, match="holds latents as numpy files"):
        generator_run(out).build()


@pytest.mark.parametrize(
    ("out", "settings", "message"),
    [
        ("a.parquet", {**EMBEDDINGS, "side": "both"}, "one Parquet file holds one table"),
        ("a.parquet", {**EMBEDDINGS, "format": "numpy"}, "cannot hold --format numpy"),
        ("a.npy", {}, "name a folder"),
        ("a", {**EMBEDDINGS, "prefixes": (5,)}, "choose from 1 to 4"),
        ("a", {**EMBEDDINGS, "splits": ("val",)}, "no split 'val'"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(model, data, tmp_path, out, settings, message):
    with pytest.raises((ConfigError, DataError), match=message):
        run(model, data, tmp_path / out, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": "text"}, "is for embeddings"),
        ({"prefixes": (1,)}, "latents are written whole"),
        ({**EMBEDDINGS, "prefixes": (1, 1)}, "names a length twice"),
        ({**EMBEDDINGS, "prefixes": (1,), "side": "text"}, "is for image embeddings"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExportConfig.parse(settings)


def test_a_tokenizer_without_text_embeds_nothing_and_exports_latents(data: Path, tmp_path: Path):
    folder = saved_tokenizer(tmp_path / "tokenizer", data, text=False)
    with pytest.raises(DataError, match="no text-image space"):
        run(folder, data, tmp_path / "out", **EMBEDDINGS)
    run(folder, data, tmp_path / "out")


def test_captions_too_long_for_the_tower_are_cut_and_counted(data: Path, tmp_path: Path):
    folder = saved_tokenizer(tmp_path / "tokenizer", data, context=6)
    with pytest.warns(UserWarning, match="cut at max_tokens=5"):
        run(folder, data, tmp_path / "out", **EMBEDDINGS, side="text")
    words = CaptionTokenizer.load(data / "captions.model")
    long = sum(len(words.encode(t)) > 5 for s in COUNTS for texts in whole(data, s).captions for t in texts)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["check"] == {"captions_cut": long}


def spoil(monkeypatch: pytest.MonkeyPatch, row: int, value: float) -> None:
    """One number of the picture at `row` of each shard that has so many."""
    whole_shard = ShardEncoder.encode

    def spoiled(self, *arguments):
        found = whole_shard(self, *arguments)
        if len(found.values) > row:
            found.values[row, 1, 2] = value
        return found

    monkeypatch.setattr(ShardEncoder, "encode", spoiled)
