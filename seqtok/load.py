"""From settings to objects: models, objectives, loaders, and what happens when a run samples or finishes.

Shapes: B images, K latents, D channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from ar_model import GeneratorObjective, SeqGenerator
from data_pipelines.captions import CaptionTokenizer
from data_pipelines.image_text import ImageTextLoader, read_split
from data_pipelines.latent_text import LatentTextLoader, read_latents
from data_pipelines.stream import StreamLoader
from seq_tokenizer import LatentSpec, SeqTokenizer, TokenizerObjective
from seqtok.config import GeneratorRun, TokenizerRun
from seqtok.evaluation.pictures import grid, strip
from seqtok.evaluation.reconstruction import decode_all, encode_all, prefix_lengths
from seqtok.export import require_export
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.training import World

_STATISTICS = 4096  # training images that latent means and deviations are measured on
_SHOWN = 8  # images in a sample picture
_PROMPTS = 4


def build_tokenizer(run: TokenizerRun) -> tuple[TokenizerObjective, ImageTextLoader | StreamLoader]:
    """The objective with fresh weights and this process's loader. Raises ConfigError or DataError."""
    captions = CaptionTokenizer.load(run.data.captions_path)
    model, loader = run.model, _image_loader(run, captions)
    if loader.image_size != model.image_size:
        raise ConfigError(
            f"model.image_size={model.image_size}, but {run.data.name} holds pictures of {loader.image_size} "
            f"pixels; set one of model.image_size and data.loader.image_size"
        )
    if model.text is not None:
        text = model.text.model_copy(update={"vocab_size": captions.vocab_size})
        if text.context <= run.data.loader.max_tokens:
            raise ConfigError(
                f"model.text.context={text.context} must be above data.loader.max_tokens={run.data.loader.max_tokens}"
            )
        model = model.model_copy(update={"text": text})
    torch.manual_seed(run.train.seed)
    return TokenizerObjective(SeqTokenizer(model), run.objective), loader


def _image_loader(run: TokenizerRun, captions: CaptionTokenizer) -> ImageTextLoader | StreamLoader:
    data, world = run.data, World.from_environment()
    share: _Share = {
        "seed": run.train.seed,
        "global_batch": run.train.batch,
        "micro_batch": run.train.micro_batch_of(world.size),
        "rank": world.rank,
        "world": world.size,
    }
    if data.stream is not None:
        return StreamLoader(data.stream, captions, data.loader, **share)
    assert data.folder is not None
    return ImageTextLoader(data.folder, data.split, captions, data.loader, **share)


def build_generator(run: GeneratorRun) -> tuple[GeneratorObjective, LatentTextLoader]:
    """The objective with fresh weights and this process's loader. Raises ConfigError, DataError or MismatchError."""
    captions, world = CaptionTokenizer.load(run.data.captions_path), World.from_environment()
    loader = LatentTextLoader(
        run.data.folder,
        run.data.split,
        captions,
        run.data.loader,
        seed=run.train.seed,
        global_batch=run.train.batch,
        micro_batch=run.train.micro_batch_of(world.size),
        rank=world.rank,
        world=world.size,
    )
    spec = LatentSpec.from_json(loader.latent_spec, f"{run.data.folder}/dataset.json")
    require_export(run.data.folder, run.data.split, captions)
    if run.tokenizer is not None:
        SeqTokenizer.from_pretrained(run.tokenizer).spec.require_same(spec, str(run.tokenizer), str(run.data.folder))
    torch.manual_seed(run.train.seed)
    generator = SeqGenerator(run.model, spec, captions)
    return GeneratorObjective(generator, run.objective, spec, str(run.data.folder)), loader


class _Share(TypedDict):
    """Which part of the batches is this process's."""

    seed: int
    global_batch: int
    micro_batch: int
    rank: int
    world: int


class TokenizerHooks:
    """Sample pictures during training, the model folder at its end."""

    def __init__(self, run: TokenizerRun) -> None:
        self._run = run
        self._captions = CaptionTokenizer.load(run.data.captions_path)

    def on_sample(self, module: nn.Module, folder: Path, images: int) -> None:
        """A strip: every row one training image, then its decodings from 1, 2, 4, ... K tokens."""
        tokenizer = _tokenizer_of(module)
        batch = self._read(_SHOWN)
        latents = encode_all(tokenizer, batch, device=tokenizer.device)
        prefixes = prefix_lengths(latents.shape[1])
        decoded = torch.stack([decode_all(tokenizer, latents, k, device=tokenizer.device) for k in prefixes], 1)
        folder.mkdir(parents=True, exist_ok=True)
        strip(batch, decoded, prefixes).save(folder / f"images_{images:09d}.png")

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        tokenizer = _tokenizer_of(module)
        pixels = self._read(_STATISTICS).float().div(127.5).sub(1.0)
        tokenizer.measure_latents(pixels.split(256))
        tokenizer.save_pretrained(folder, self._run.data.captions_path)

    def _read(self, limit: int) -> Tensor:
        data = self._run.data
        if data.stream is not None:
            share = {"seed": 0, "global_batch": 1}
            return StreamLoader(data.stream, self._captions, data.loader, **share).first(limit).images
        assert data.folder is not None
        return read_split(data.folder, data.split, self._captions, limit, data.loader).images


class GeneratorHooks:
    """Sample pictures during training (when the run names its tokenizer), the model folder at its end."""

    def __init__(self, run: GeneratorRun) -> None:
        self._tokenizer = SeqTokenizer.from_pretrained(run.tokenizer) if run.tokenizer else None
        captions = CaptionTokenizer.load(run.data.captions_path)
        shown = read_latents(run.data.folder, run.data.split, captions, _PROMPTS, run.data.loader).captions
        self._prompts = [pyramid[-1] for pyramid in shown if pyramid]

    def on_sample(self, module: nn.Module, folder: Path, sequences: int) -> None:
        """Every row one prompt, decoded from 1, 2, 4, ... K tokens."""
        if self._tokenizer is None:
            return
        latents = _generator_of(module).sample(self._prompts).cpu()
        prefixes = prefix_lengths(latents.shape[1])
        decoded = torch.stack([decode_all(self._tokenizer, latents, k) for k in prefixes], 1)
        folder.mkdir(parents=True, exist_ok=True)
        grid([list(row) for row in decoded], [str(k) for k in prefixes]).save(folder / f"images_{sequences:09d}.png")

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        _generator_of(module).save_pretrained(folder)


def _tokenizer_of(module: nn.Module) -> SeqTokenizer:
    if not isinstance(module, TokenizerObjective):
        raise TypeError(f"expected a TokenizerObjective, got {type(module).__name__}")
    return module.tokenizer.eval()


def _generator_of(module: nn.Module) -> SeqGenerator:
    if not isinstance(module, GeneratorObjective):
        raise TypeError(f"expected a GeneratorObjective, got {type(module).__name__}")
    return module.generator.eval()
