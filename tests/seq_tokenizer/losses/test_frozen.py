"""Frozen networks of every form, made on the spot; what is measured in their features; what a teacher is asked."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from seq_tokenizer.losses.frozen import FrozenConfig, FrozenNetwork
from seq_tokenizer.losses.teacher import _on_grid
from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.errors import ConfigError
from tests.seq_tokenizer.losses.reached import losses_of_training, objective_of, parts_reached
from tests.seq_tokenizer.toy import toy_batch, toy_pixels

FORMS = ("torchscript", "timm", "open_clip")
CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
}
STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.first(x).tanh()
        return [h, self.second(h)]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A path of every form."""
    prepare_torchvision()
    import open_clip
    import timm
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    torch.jit.script(Maps()).save(str(folder / "maps.pt"))
    tower = timm.create_model("test_vit", img_size=16, patch_size=4, num_classes=0)
    save_for_hf(tower, str(folder / "timm"), model_args={"img_size": 16, "patch_size": 4}, safe_serialization=True)
    (folder / "clip").mkdir()
    (folder / "clip" / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CLIP, "preprocess_cfg": STATISTICS})
    )
    weights = open_clip.model.CLIP(**CLIP).state_dict()
    save_file({n: w.contiguous() for n, w in weights.items()}, folder / "clip" / "open_clip_model.safetensors")
    return {"torchscript": f"{folder}/maps.pt", "timm": f"{folder}/timm", "open_clip": f"{folder}/clip"}


def frozen(network: str | None, **settings: Any) -> FrozenNetwork:
    return FrozenNetwork(FrozenConfig(network=network, **settings), "perceptual")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_maps_of_its_layers(form: str, networks: dict[str, str]):
    network, pixels = frozen(networks[form], layers=(0, -1)), toy_pixels()
    first, last = network(pixels)
    assert first.shape[0] == last.shape[0] == 3
    assert network.channels(16) == [first.shape[1], last.shape[1]]
    torch.testing.assert_close(frozen(networks[form], layers=(-1,))(pixels)[0], last)
    assert not torch.equal(frozen(networks[form], mean=(0.0, 0.0, 0.0))(pixels)[0], last)
    with pytest.raises(ConfigError, match=r"perceptual.layers"):
        frozen(networks[form], layers=(7,))(pixels)


def test_pixels_come_as_each_network_wants_them(networks: dict[str, str]):
    """A torchscript file in [-1, 1], as here; the others by the statistics of their folders, at their own size."""
    pixels = toy_pixels()
    expected = torch.jit.load(networks["torchscript"])(pixels)
    torch.testing.assert_close(frozen(networks["torchscript"])(pixels)[0], expected[1])
    clip = frozen(networks["open_clip"])
    torch.testing.assert_close(clip._mean.flatten(), torch.tensor(STATISTICS["mean"]))
    assert clip.size == (16, 16)
    assert clip(toy_pixels(2, 32))[0].shape == (2, 16, 2, 2)


def test_it_is_copied_with_nobody_and_trained_by_nobody(networks: dict[str, str]):
    objective = objective_of(pixels={}, perceptual={"network": networks["timm"]})
    names = {name for name, _ in objective.named_parameters()} | objective.state_dict().keys()
    assert not any("perceptual" in name for name in names)
    assert copy.deepcopy(objective).terms["perceptual"].network is objective.terms["perceptual"].network


@pytest.mark.parametrize("term", ["perceptual", "teacher"])
def test_what_is_no_network_is_one_message(term: str, networks: dict[str, str], tmp_path: Path):
    (tmp_path / "half.pt").write_bytes(b"x" * 100)
    (tmp_path / "empty").mkdir()
    for network, message in (
        (None, f"`{term}.network` is not set"),
        ("/nowhere/at/all", "no such file or folder"),
        (f"{tmp_path}/half.pt", "torchscript file"),
        (f"{tmp_path}/empty", "no open_clip_config.json"),
    ):
        with pytest.raises(ConfigError, match=message):
            objective_of(**{term: {"network": network}})


@pytest.mark.parametrize("form", FORMS)
def test_equal_pictures_have_no_distance_and_the_decoder_learns(form: str, networks: dict[str, str]):
    objective = objective_of(perceptual={"network": networks[form], "layers": (0, 1)})
    assert parts_reached(objective) == {"encoder", "bottleneck", "decoder"}
    view, _ = objective._view(toy_batch())
    equal = torch.cat([view.pixels, view.pixels])
    object.__setattr__(view, "pictures", equal)
    assert objective.terms["perceptual"](view)[0] < 1e-8
    losses = losses_of_training(objective, 15)
    assert losses[-1] < losses[0]
    module = objective.terms["perceptual"].network._module
    assert not any(p.requires_grad or p.grad is not None for p in module.parameters())


def test_the_distance_is_that_of_unit_features(networks: dict[str, str]):
    """Written out for one picture, k = K: short and whole are the same."""
    objective = objective_of(perceptual={"network": networks["torchscript"], "weight": 1.0})
    view, _ = objective._view(toy_batch(1))
    object.__setattr__(view, "prefix", torch.tensor([3]))
    network = torch.jit.load(networks["torchscript"])
    real, short, whole = (F.normalize(network(x)[1], dim=1) for x in (view.pixels, view.short, view.whole))
    expected = 0.5**0.7 * (short - real).square().sum(1).mean() + (whole - real).square().sum(1).mean()
    torch.testing.assert_close(objective.terms["perceptual"](view)[0], expected)


@pytest.mark.parametrize("encoder", ["titok", "qformer"])
@pytest.mark.parametrize("form", FORMS)
def test_a_teacher_teaches_the_first_half_of_the_encoder(form: str, encoder: str, networks: dict[str, str]):
    objective = objective_of(encoder=encoder, teacher={"network": networks[form], "hidden": 32})
    assert parts_reached(objective) == {"encoder", "teacher"}
    model = objective.tokenizer.encoder
    late = model.blocks[1:] if encoder == "titok" else model.readers
    assert not any(p.grad is not None and p.grad.any() for p in [model.queries, *late.parameters()])
    losses = losses_of_training(objective, 15)
    assert losses[-1] < losses[0]


def test_grids_of_other_sizes_are_interpolated_place_by_place():
    maps = torch.arange(4.0).view(1, 1, 2, 2).repeat(2, 1, 1, 1)
    assert torch.equal(_on_grid(maps, [2, 2])[0, :, 0], torch.arange(4.0))
    finer = _on_grid(maps, [4, 2])[0, :, 0].view(4, 2)
    torch.testing.assert_close(finer[[0, -1]], torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    torch.testing.assert_close(_on_grid(maps, [1, 1])[0], torch.tensor([[1.5]]))


def test_a_teacher_of_two_layers_and_an_encoder_of_one_are_refused(networks: dict[str, str]):
    with pytest.raises(ConfigError, match=r"teacher.layers"):
        objective_of(teacher={"network": networks["timm"], "layers": (0, 1)})
    objective = objective_of(teacher={"network": networks["timm"]})
    objective.tokenizer.encoder.blocks = objective.tokenizer.encoder.blocks[1:]
    with pytest.raises(ConfigError, match="`teacher` needs encoder patches"):
        objective(toy_batch())
