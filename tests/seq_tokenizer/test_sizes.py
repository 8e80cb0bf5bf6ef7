"""Pictures of other sizes and shapes than the training one: decoding them, their places, training at several."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seq_tokenizer import SeqTokenizer, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.encoders.patches import patch_positions
from seq_tokenizer.losses.base import View
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.embed import grid_positions, sincos
from tests.seq_tokenizer.toy import CONFIG, toy_batch, toy_latents, toy_pixels, toy_tokenizer

DECODERS = ({"kind": "pixel"}, {"kind": "flow", "steps": 2, "guidance": 2.0})
POSITIONS = ("absolute", "per_axis", "longer_side")


def shape_of(positions: str) -> TokenizerConfig:
    return TokenizerConfig.parse({**CONFIG, "positions": positions})


def places(positions: str, rows: int, columns: int) -> torch.Tensor:
    return patch_positions(shape_of(positions), rows, columns, torch.device("cpu"))


def features(cells: torch.Tensor) -> torch.Tensor:
    return sincos(cells, CONFIG["width"], 16.0)  # four sides of 4 patches


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: d["kind"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_size_can_be_asked_for_and_the_training_one_is_usual(decoder: dict[str, Any], positions: str):
    model, z = toy_tokenizer(decoder=decoder, positions=positions), toy_latents()
    assert model.decode(z, 2, size=(24, 20)).shape == (3, 3, 24, 20)
    assert torch.equal(model.decode(z, size=(16, 16)), model.decode(z))
    assert model.encode(toy_pixels(2, 24)).shape == (2, 6, 3)


@pytest.mark.parametrize("size", [(18, 16), (16, 18), (16, 2), (0, 16)])
def test_a_size_that_is_not_made_of_patches_is_refused_with_the_nearest(size: tuple[int, int]):
    with pytest.raises(ConfigError, match=r"patches of 4; the nearest is \d+ x \d+"):
        toy_tokenizer().decode(toy_latents(), size=size)
    with pytest.raises(ConfigError, match=r"18 x 18 .* nearest is 16 x 16"):
        TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig(sizes=(16, 18)))


@pytest.mark.parametrize("positions", POSITIONS)
def test_all_agree_on_the_training_size(positions: str):
    assert torch.equal(places(positions, 4, 4), features(grid_positions(4, 4)))


def test_absolute_places_go_on_and_others_span_the_training_grid():
    """The picture's middle and its ends; a grid of 4 cells spans -0.5 to 3.5."""
    torch.testing.assert_close(places("absolute", 8, 8), features(grid_positions(8, 8)))
    fine = grid_positions(8, 8) / 2 - 0.25  # -0.25, 0.25, ... 3.25
    torch.testing.assert_close(places("per_axis", 8, 8), features(fine))
    torch.testing.assert_close(places("longer_side", 8, 8), features(fine))
    wide = grid_positions(4, 8) / 2 - 0.25
    torch.testing.assert_close(places("longer_side", 4, 8), features(wide + torch.tensor([1.0, 0.0])))
    torch.testing.assert_close(
        places("per_axis", 4, 8), features(torch.stack([grid_positions(4, 8)[:, 0], wide[:, 1]], 1))
    )


def test_training_at_several_sizes_draws_one_for_a_batch():
    objective = TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig(sizes=(8, 16, 24)))
    seen: list[View] = []
    objective.terms["pixels"].register_forward_pre_hook(lambda term, inputs: seen.append(inputs[0]))
    for first in range(0, 56, 4):
        objective(toy_batch(4, first=first))["loss"].backward()
    sides = [view.pixels.shape[-1] for view in seen]
    assert set(sides) == {8, 16, 24}
    assert all(view.decoded.shape[-2:] == view.pixels.shape[-2:] for view in seen)
    objective(toy_batch(4, first=0))
    assert seen[-1].pixels.shape[-1] == sides[0], "the same samples, the same size"
    unchanged = next(view for view in seen if view.pixels.shape[-1] == 16)
    torch.testing.assert_close(unchanged.pixels, unchanged.batch.pixels())


def test_a_generative_decoder_learns_at_several_sizes():
    model = toy_tokenizer(text=False, decoder=DECODERS[1])
    losses = TokenizerObjective(model, TokenizerTrainingConfig(sizes=(8,)))(toy_batch())
    assert bool(torch.isfinite(losses["decoder_loss"]))


def test_a_key_that_came_later_leaves_old_identities_as_they_were():
    config = shape_of("absolute")
    assert "positions" not in config.model_dump(mode="json")
    assert shape_of("per_axis").model_dump(mode="json")["positions"] == "per_axis"
    assert TokenizerConfig.parse(shape_of("per_axis").model_dump(mode="json")) == shape_of("per_axis")
    assert SeqTokenizer(config).tokenizer_id != SeqTokenizer(shape_of("per_axis")).tokenizer_id
