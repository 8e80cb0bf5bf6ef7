"""What the tokenizer is trained for: independence of batching, what text reaches, saved = loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_pipelines.captions import tokenizer as caption_ids
from seq_tokenizer import SeqTokenizer, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.losses.contrast import ContrastConfig
from seq_tokenizer.text import tower as text_alignment
from seqtok_core.foundation.errors import ConfigError, DataError, MismatchError
from tests.seq_tokenizer.toy import CONFIG, toy_batch, toy_pixels, toy_tokenizer


def test_what_is_random_belongs_to_the_sample():
    """The pixel loss of a batch is the mean over its halves, whichever way it is cut."""
    objective = TokenizerObjective(toy_tokenizer(text=False), TokenizerTrainingConfig())
    whole = objective(toy_batch(8))["loss"]
    halves = [objective(toy_batch(4, first=first))["loss"] for first in (0, 4)]
    torch.testing.assert_close(whole, torch.stack(halves).mean())
    other_epoch = replace(toy_batch(8), epoch=torch.ones(8, dtype=torch.int64))
    assert not torch.allclose(objective(other_epoch)["loss"], whole, rtol=1e-4)


def test_text_reaches_the_encoder_only_when_it_has_weight():
    gradients = []
    for weight in (0.0, 1.0):
        model = toy_tokenizer()
        losses = TokenizerObjective(model, TokenizerTrainingConfig(contrast=ContrastConfig(weight=weight)))(toy_batch())
        losses["loss"].backward()
        gradients.append(model.encoder.queries.grad.clone())
    assert not torch.allclose(*gradients)
    assert {"pixel_loss", "text_loss_0", "text_loss_1"} <= losses.keys()


def test_excluded_matrices_exist():
    objective = TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig())
    assert objective.muon_excluded() <= {name for name, _ in objective.named_parameters()}


def test_special_ids_are_those_of_the_captions():
    for name in ("PAD", "BOS", "EOS"):
        assert getattr(text_alignment, name) == getattr(caption_ids, name)


def test_statistics_normalise_the_latents():
    model, pixels = toy_tokenizer(), toy_pixels(64)
    model.measure_latents(pixels.split(10))
    z = model.encode(pixels)
    standard = model.spec.normalise(z)
    torch.testing.assert_close(standard.mean(0), torch.zeros(6, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(0, unbiased=False), torch.ones(6, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.spec.denormalise(standard), z)
    torch.testing.assert_close(model.spec.normalise(z[:, :2]), standard[:, :2])


def test_saved_is_loaded(tmp_path: Path):
    model = toy_tokenizer()
    model.measure_latents([toy_pixels(16)])
    model.save_pretrained(tmp_path)
    again = SeqTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode(toy_pixels()), model.encode(toy_pixels()))
    assert again.tokenizer_id == model.tokenizer_id
    assert not any(path.suffix in (".pt", ".bin", ".pkl") for path in tmp_path.iterdir())


def test_identity_is_that_of_settings_and_weights():
    model = toy_tokenizer()
    assert model.tokenizer_id == toy_tokenizer().tokenizer_id
    assert model.tokenizer_id != toy_tokenizer(seed=1).tokenizer_id
    before = model.tokenizer_id
    with torch.no_grad():
        model.decoder.absent[0] += 1e-6
    assert model.tokenizer_id != before


def test_latents_of_another_tokenizer_are_refused_by_name():
    one, two = toy_tokenizer().spec, toy_tokenizer(seed=1).spec
    one.require_same(one, "here", "there")
    with pytest.raises(MismatchError, match=f"{two.tokenizer_id}.*{one.tokenizer_id}"):
        one.require_same(two, "the model", "the folder")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "not readable as JSON"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "cannot be read"),
        (lambda f: _edit(f, "width", 64), "does not fit"),
        (lambda f: _edit(f, "widht", 64), "did you mean tokenizer.width|did you mean width"),
    ],
)
def test_a_damaged_model_folder_is_one_message(tmp_path: Path, break_it, message: str):
    toy_tokenizer().save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises((DataError, ConfigError), match=message):
        SeqTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("hashed", [True, False])
def test_damaged_weights_are_found_with_the_hash_of_the_file_or_without(hashed: bool, tmp_path: Path):
    """Folders from before there was a hash name the tokenizer, whose id is one of settings and weights."""
    toy_tokenizer().save_pretrained(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    parts = json.loads(config.read_text())
    assert parts.pop("weights_sha256")
    if not hashed:
        config.write_text(json.dumps(parts))
    assert SeqTokenizer.from_pretrained(tmp_path).tokenizer_id == parts["latents"]["tokenizer_id"]
    data = bytearray(weights.read_bytes())
    data[-6] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"model\.safetensors: .*put the original file"):
        SeqTokenizer.from_pretrained(tmp_path)


def _edit(folder: Path, key: str, value: object) -> None:
    parts = json.loads((folder / "config.json").read_text())
    parts["tokenizer"][key] = value
    (folder / "config.json").write_text(json.dumps(parts))


def test_settings_that_do_not_fit_say_the_way_out():
    with pytest.raises(ConfigError, match="patch_size=5 does not divide image_size=16"):
        TokenizerConfig.parse({**CONFIG, "patch_size": 5})
    with pytest.raises(ConfigError, match="unknown key num_latent; did you mean num_latents"):
        TokenizerConfig.parse({**CONFIG, "num_latent": 5})
    with pytest.raises(DataError, match="without captions"):
        toy_tokenizer(text=False).prefix_embeddings(torch.zeros(1, 2, 3))


@pytest.mark.parametrize("starts", [(1,), (1, 7)])
def test_starts_that_do_not_fit_the_pyramid_are_named(starts: tuple[int, ...]):
    objective = TokenizerObjective(
        toy_tokenizer(), TokenizerTrainingConfig(contrast=ContrastConfig(level_starts=starts))
    )
    with pytest.raises(ConfigError, match="level_starts"):
        objective(toy_batch())


def test_one_token_learns_from_all_levels():
    torch.manual_seed(0)
    tower = {"vocab_size": 40, "context": 8, "width": 16, "layers": 1, "heads": 2, "embed_dim": 8}
    config = TokenizerConfig.parse({**CONFIG, "num_latents": 1, "text": tower})
    objective = TokenizerObjective(SeqTokenizer(config), TokenizerTrainingConfig())
    losses = objective(toy_batch(levels=4))
    losses["loss"].backward()
    assert {f"text_loss_{level}" for level in range(4)} <= losses.keys()
    assert float(objective.tokenizer.encoder.queries.grad.abs().sum()) > 0
