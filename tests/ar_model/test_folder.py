"""The model folder: what was saved comes back bit for bit, what does not belong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ar_model import SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError, SeqtokError
from tests.ar_model.toy import latent_spec, toy_generator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy_generator().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_loaded_is_saved(folder: Path) -> None:
    model, loaded = toy_generator(), SeqGenerator.from_pretrained(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "captions.model",
        "config.json",
        "model.safetensors",
    ]
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert loaded.config == model.config
    assert loaded.spec.tokenizer_id == latent_spec().tokenizer_id
    prompts = ["a red circle", "one shape"]
    assert torch.equal(loaded.sample(prompts, flow={"steps": 3}), model.sample(prompts, flow={"steps": 3}))


def test_saving_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    SeqGenerator.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_the_card_names_the_tokenizer(folder: Path) -> None:
    assert f"`{latent_spec().tokenizer_id}`" in (folder / "README.md").read_text()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _edit(path: Path, key: str, value: object) -> None:
    parts = json.loads(path.read_text())
    parts[key] = value
    path.write_text(json.dumps(parts))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: _cut(f / "model.safetensors"), "model.safetensors"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: save_file({"x": torch.ones(1)}, f / "model.safetensors"), "does not fit config.json"),
        (
            lambda f: _edit(f / "config.json", "kind", "seqtok tokenizer"),
            "not a seqtok sequence model but a seqtok tokenizer",
        ),
        (lambda f: _edit(f / "config.json", "format", 9), "format 9"),
        (lambda f: _edit(f / "config.json", "format", 1), "format 1; this version of seqtok reads format 2"),
        (
            lambda f: _edit(f / "config.json", "generator", {"widht": 8}),
            "unknown key widht; did you mean width",
        ),
        (lambda f: _edit(f / "config.json", "latents", None), "the part 'latents' is missing"),
        (lambda f: CaptionTokenizer.train(["zebra"], f / "captions.model", 300), "not the text model"),
    ],
)
def test_a_damaged_folder_is_explained(folder: Path, damage: object, message: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(SeqtokError, match=message):
        SeqGenerator.from_pretrained(folder)


def _settings(path: Path, **changes: int) -> None:
    _edit(path, "generator", {**json.loads(path.read_text())["generator"], **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 2**24}, r"does not fit config.json \(backbone.* of shape \(.*\) in the file, \(.*16777216"),
        ({"width": 2**42}, "does not fit config.json"),
        ({"depth": 10**9}, r"does not fit config.json \(it describes more than \d+ tensors"),
        ({"depth": 1}, "none described"),
    ],
)
def test_what_the_weights_do_not_fit_is_refused_before_memory_is_taken(
    folder: Path, changes: dict[str, int], message: str
) -> None:
    _settings(folder / "config.json", **changes)
    with pytest.raises(DataError, match=message):
        SeqGenerator.from_pretrained(folder)


def test_a_model_is_loaded_where_the_user_says(folder: Path) -> None:
    assert SeqGenerator.from_pretrained(folder, device="meta").device.type == "meta"
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(ConfigError, match=f"device={device}"):
            SeqGenerator.from_pretrained(folder, device=device)


def test_what_is_neither_a_folder_nor_a_hub_id_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such model folder"):
        SeqGenerator.from_pretrained(tmp_path / "nothing")
    with pytest.raises(DataError, match="no such model folder"):
        SeqGenerator.from_pretrained("nothing")


def test_a_hub_id_is_fetched_through_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[str] = []

    def fetch(repo_id: str, allow_patterns: list[str]) -> str:
        asked.append(repo_id)
        if repo_id == "owner/absent":
            raise LocalEntryNotFoundError("no network")
        assert not any(pattern.endswith((".bin", ".pt", ".pkl", "*")) for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert SeqGenerator.from_pretrained("owner/model").spec.tokenizer_id == "aaaa"
    with pytest.raises(DataError, match=r"owner/absent.*no network"):
        SeqGenerator.from_pretrained("owner/absent")
    assert asked == ["owner/model", "owner/absent"]


def test_a_foreign_captions_model_is_a_mismatch(folder: Path) -> None:
    CaptionTokenizer.train(["zebra"], folder / "captions.model", 300)
    with pytest.raises(MismatchError):
        SeqGenerator.from_pretrained(folder)
