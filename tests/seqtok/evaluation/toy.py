"""Stand-ins for the evaluation tests: a tokenizer that loses nothing, a reader that never errs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ar_model import SampleConfig
from data_pipelines.samples import to_model
from data_pipelines.scenes import Scene, make_scene
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.reader import Reading, true_reading

SIZE = 16  # pixels
LENGTH = 4  # K


class LosslessTokenizer:
    """Token i holds the i-th quarter of the picture's rows; absent rows are gray."""

    device = torch.device("cpu")

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels.permute(0, 2, 1, 3).reshape(len(pixels), LENGTH, -1)

    def decode(self, latents: Tensor, num_tokens: int | Tensor | None = None) -> Tensor:
        assert num_tokens is None or isinstance(num_tokens, int)
        shown = latents.clone()
        shown[:, num_tokens:] = 0.0
        return shown.reshape(len(latents), SIZE, 3, -1).permute(0, 2, 1, 3)


class PerfectGenerator:
    """Gives the latents of the very pictures that the prompts come from."""

    head_kind = "flow"

    def __init__(self, scenes: Sequence[Scene]) -> None:
        pixels = to_model(real_pictures(scenes, SIZE))
        latents = LosslessTokenizer().encode(pixels)
        self.known = {scene.captions[3]: z for scene, z in zip(scenes, latents, strict=True)}

    def sample(self, prompts: Sequence[str], config: SampleConfig, *, seed: int) -> Tensor:
        return torch.stack([self.known[prompt] for prompt in prompts])


class PerfectReader:
    """Knows every picture of `scenes`; any other picture shows nothing on white."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        pictures = real_pictures(scenes, SIZE)
        self.known = {_name(p): true_reading(s) for p, s in zip(pictures, scenes, strict=True)}

    def read(self, pixels: Tensor, batch: int = 500) -> list[Reading]:
        pictures = pixels.add(1).mul(127.5).round().byte()
        return [self.known.get(_name(p), Reading((), "white")) for p in pictures]


def held_out(count: int, seed: int = 5) -> list[Scene]:
    return [make_scene(seed, index, "test") for index in range(count)]


def _name(picture: Tensor) -> bytes:
    return picture.contiguous().numpy().tobytes()
