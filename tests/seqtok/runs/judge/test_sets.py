"""A large set of drawn pictures: a file that others read, the same however often it was stopped, held against real
ones as the trusted formulas do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ar_model import SeqGenerator
from seq_tokenizer import SeqTokenizer
from seqtok.evaluation.eyes.networks import FeatureNetwork
from seqtok.evaluation.eyes.samples import features_of_set
from seqtok.evaluation.metrics.sets.frechet import frechet_distance, moments
from seqtok.evaluation.metrics.sets.inception import inception_score
from seqtok.evaluation.metrics.sets.manifolds import precision_recall
from seqtok.pictures import sample_set
from seqtok.pictures.sample_set import SampleSetConfig, draw_set, pictures_of_file, set_prompts
from seqtok_core.foundation.errors import ConfigError, DataError
from tests.seqtok.commands.test_commands import data, seqtok  # noqa: F401 (a fixture)
from tests.seqtok.commands.test_sampling_command import models  # noqa: F401 (a fixture)

PROMPTS = ["a red circle", "a blue square", "two shapes"]
ASKED = SampleSetConfig.parse({"count": 10, "sample": {"guidance": 1.0, "flow": {"steps": 1}}})
CLASSIFIER = torch.randn(7, 12, generator=torch.Generator().manual_seed(1)) / 4


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_set, "_DRAWN_AT_ONCE", 4)
    monkeypatch.setattr(sample_set, "_READ_AT_ONCE", 3)


def of_means(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 12): means of quarters."""
    return torch.nn.functional.adaptive_avg_pool2d(pictures.float(), 2).flatten(1) / 64


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FeatureNetwork:
    found = FeatureNetwork("means", "0" * 16, of_means, CLASSIFIER)
    monkeypatch.setattr("seqtok.runs.judge.sets.open_network", lambda name, device: found)
    return found


def pair(models: tuple[Path, Path]) -> tuple[SeqGenerator, SeqTokenizer]:  # noqa: F811
    """With a decoder whose last layer is not zero, as untrained ones are."""
    generator, tokenizer = SeqGenerator.from_pretrained(models[0]), SeqTokenizer.from_pretrained(models[1])
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tokenizer.decoder.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return generator, tokenizer


def drawn(models: tuple[Path, Path], out: Path, config: SampleSetConfig = ASKED) -> np.ndarray[Any, Any]:  # noqa: F811
    with np.load(draw_set(*pair(models), PROMPTS, config, out)) as archive:
        assert archive.files == ["arr_0"]
        return np.asarray(archive["arr_0"])


class Stopped(Exception):
    pass


def test_stopped_and_gone_on_it_is_the_same_file(models, tmp_path: Path):  # noqa: F811
    whole = drawn(models, tmp_path / "whole")
    assert whole.shape == (10, 32, 32, 3)
    assert whole.dtype == np.uint8

    def stop(number: int) -> None:
        if number == 8:
            raise Stopped

    with pytest.raises(Stopped):
        draw_set(*pair(models), PROMPTS, ASKED, tmp_path / "stopped", stop)
    assert sorted(path.name for path in (tmp_path / "stopped" / "parts").iterdir()) == ["000000.npy", "000001.npy"]
    generator, tokenizer = pair(models)
    seeds: list[int] = []
    sample = generator.sample
    generator.sample = lambda *a, **k: seeds.append(k["seed"]) or sample(*a, **k)  # type: ignore[method-assign,func-returns-value]
    draw_set(generator, tokenizer, PROMPTS, ASKED, tmp_path / "stopped")
    assert seeds == [2], "parts that are there are not drawn again"
    assert (tmp_path / "stopped" / "samples.npz").read_bytes() == (tmp_path / "whole" / "samples.npz").read_bytes()
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == ["run.lock", "samples.json", "samples.npz"]


def test_each_picture_of_a_prompt_is_another(models, tmp_path: Path):  # noqa: F811
    one = drawn(models, tmp_path, ASKED.model_copy(update={"count": 9}))[::3]
    assert len({picture.tobytes() for picture in one}) == len(one)


def test_labels_are_even_or_random_and_the_seeds_own():
    even = set_prompts(PROMPTS, ASKED.model_copy(update={"count": 300}))
    assert {prompt: even.count(prompt) for prompt in PROMPTS} == dict.fromkeys(PROMPTS, 100)
    config = ASKED.model_copy(update={"count": 3000, "labels": "random"})
    found = set_prompts(PROMPTS, config)
    assert all(900 < found.count(prompt) < 1100 for prompt in PROMPTS)
    assert found == set_prompts(PROMPTS, config)
    assert found != set_prompts(PROMPTS, config.model_copy(update={"seed": 1}))


def test_a_folder_of_another_set_is_refused(models, tmp_path: Path):  # noqa: F811
    drawn(models, tmp_path)
    with pytest.raises(ConfigError, match=r"another set of pictures \(seed differ"):
        drawn(models, tmp_path, ASKED.model_copy(update={"seed": 1}))
    with pytest.raises(ConfigError, match="prompts_sha256"):
        draw_set(*pair(models), PROMPTS[::-1], ASKED, tmp_path)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_pictures_are_read_as_numpy_writes_them(version: tuple[int, int], tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 256, (8, 5, 4, 3), np.uint8)
    if version == (1, 0):
        np.savez_compressed(tmp_path / "a.npz", arr_0=values)
    else:
        import zipfile

        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("arr_0.npy", "w") as member:
            np.lib.format.write_array(member, values, version)
    parts = list(pictures_of_file(tmp_path / "a.npz"))
    assert [len(part) for part in parts] == [3, 3, 2]
    assert np.array_equal(torch.cat(parts).permute(0, 2, 3, 1).numpy(), values)


def test_what_is_no_reference_is_one_message(tmp_path: Path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", arr_1=np.zeros(3))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((2, 4, 4, 3)))
    for name, said in {
        "text": "cannot be read as",
        "other": "has no arr_0",
        "floats": "not pictures",
        "none": "",
    }.items():
        with pytest.raises(DataError, match=rf"{name}\.npz: .*{said}"):
            list(pictures_of_file(tmp_path / f"{name}.npz"))


def evaluated(capsys, models, tmp_path: Path, reference: Path, *more: object) -> dict[str, Any]:  # noqa: F811
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    words = ["--prompts", tmp_path / "prompts.txt", "--network", "means", "--reference", reference]
    words += ["--count", 40, "--steps", 1, "--guidance", 1, "--out", tmp_path / "set", *more]
    status, _, err = seqtok(capsys, "evaluate", "set", *models, *words)
    assert status == 0, err
    found: dict[str, Any] = json.loads((tmp_path / "set" / "results.json").read_text())
    assert "40 pictures of 3 prompts, each as often as another" in found["protocol"]["samples"]
    return found["samples"]  # type: ignore[no-any-return]


def test_every_form_of_reference_gives_its_own_figures(models, data, network, capsys, tmp_path: Path):  # noqa: F811
    real = torch.randint(0, 256, (30, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    features, known = of_means(real), moments(of_means(real))
    moment = {"mu": known.mean.numpy(), "sigma": known.covariance.numpy()}
    np.savez(tmp_path / "both.npz", arr_0=real.permute(0, 2, 3, 1).numpy(), **moment)
    np.savez(tmp_path / "moments.npz", **moment)
    both = evaluated(capsys, models, tmp_path, tmp_path / "both.npz")
    made = features_of_set(network, pictures_of_file(tmp_path / "set" / "samples.npz"))
    assert both["frechet"] == pytest.approx(frechet_distance(made, features))
    near = precision_recall(features, made)
    assert (both["precision"], both["recall"]) == (near.precision, near.recall)
    assert both["inception_score"]["mean"] == pytest.approx(inception_score(made, CLASSIFIER).mean)
    alone = evaluated(capsys, models, tmp_path, tmp_path / "moments.npz")
    assert alone["frechet"] == pytest.approx(both["frechet"])
    assert "precision" not in alone
    shards = evaluated(capsys, models, tmp_path, data, "--split", "train")
    assert shards["frechet"] != both["frechet"]
    assert "split train" in shards["reference"]


def test_another_networks_reference_is_refused(models, network, capsys, tmp_path: Path):  # noqa: F811
    np.savez(tmp_path / "other.npz", mu=np.zeros(5), sigma=np.eye(5))
    (tmp_path / "prompts.txt").write_text("a circle")
    words = ["--prompts", tmp_path / "prompts.txt", "--network", "means", "--reference", tmp_path / "other.npz"]
    status, _, err = seqtok(capsys, "evaluate", "set", *models, *words, "--count", 4, "--out", tmp_path / "set")
    assert status == 1
    assert "other.npz has 5 features, the network means 12" in err
    assert not (tmp_path / "set" / "samples.npz").exists(), "it is said before anything is drawn"
