"""A tokenizer's run: settings, data, objective, and what it samples and leaves.

Shapes: B images, K latents, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict

import torch
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import ImageTextLoader, read_split, sample_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.stream import StreamConfig, StreamLoader
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.samples import ImageTextBatch, to_model
from data_pipelines.shards.manifest import FILE as MANIFEST
from data_pipelines.tars.remote import scheme_of
from seq_tokenizer import SeqTokenizer, TextConfig, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import decode_all, encode_all
from seq_tokenizer.tokenizer import parameter_count
from seqtok.grids import as_tensor, strip
from seqtok.runs.base import AssumedData, RunLoader, TrainingRun, ValidationConfig, Workload, begin_with, held_out_means
from seqtok.runs.stand_in import LEVELS, random_captions, seeded_generator, vocabulary_or_stand_in, workload_of_data
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.config import LATER, RESUMABLE, Config
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.foundation.files import sha256_file
from seqtok_core.training import Shown, World

_STATISTICS = 4096  # training images that latent means and deviations are measured on
_MEASURED_AT_ONCE = 256
_SHOWN = 8  # images in a sample picture


class ImageData(Config):
    """Where pictures and captions come from: a folder of shards, or a stream."""

    folder: Annotated[Path | None, RESUMABLE] = None  # what is in it must stay, by its fingerprint
    split: str = "train"
    stream: StreamConfig | None = None
    captions: Annotated[Path | None, RESUMABLE] = None  # sentencepiece model; None: captions.model in the folder
    loader: LoaderConfig = LoaderConfig()

    @field_validator("folder", mode="before")
    @classmethod
    def _is_a_folder(cls, folder: Any) -> Any:
        if isinstance(folder, str) and scheme_of(folder):
            raise ValueError("not a folder; streams are named in data.stream.shards, with data.folder=null")
        return folder

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.folder is None) == (self.stream is None):
            raise ValueError(
                "set either data.folder (a folder of shards) or data.stream.shards (a stream; with data.folder=null)"
            )
        if self.stream is not None and self.captions is None:
            raise ValueError(
                "captions: a stream has no folder, so name the captions model: data.captions=FILE "
                "(`seqtok data text STREAM --samples N` learns one)"
            )
        return self

    @property
    def captions_path(self) -> Path:
        if self.captions is not None:
            return self.captions
        assert self.folder is not None
        return self.folder / CAPTIONS_FILE

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.folder) if self.stream is None else self.stream.patterns[0]


class TokenizerRun(TrainingRun):
    """seqtok tokenizer train."""

    kind: Literal["tokenizer"]
    data: ImageData
    model: TokenizerConfig
    objective: TokenizerTrainingConfig = TokenizerTrainingConfig()
    # A model folder: its encoder, bottleneck and text are taken over and stay as they are; a decoder is trained.
    frozen: Annotated[Path | None, LATER, RESUMABLE] = None

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.init_from is not None and self.frozen is not None:
            raise ValueError("init_from and frozen both give the encoder's weights: set one of them")
        return self

    def build(self) -> tuple[TokenizerObjective, ImageTextLoader | StreamLoader]:
        captions = CaptionTokenizer.load(self.data.captions_path)
        model, loader = self.model, _image_loader(self, captions)
        if loader.image_size != model.image_size:
            raise ConfigError(
                f"model.image_size={model.image_size}, but {self.data.name} holds pictures of {loader.image_size} "
                f"pixels; set one of model.image_size and data.loader.image_size"
            )
        if model.text is not None and model.text.context <= self.data.loader.max_tokens:
            raise ConfigError(
                f"model.text.context={model.text.context} must be above "
                f"data.loader.max_tokens={self.data.loader.max_tokens}"
            )
        torch.manual_seed(self.train.seed)
        objective = self._objective(captions.vocab_size)
        if self.init_from is not None:
            begin_with(objective.tokenizer, self._beginning(self.init_from), self.init_from)
        return objective, loader

    def _objective(self, vocab_size: int) -> TokenizerObjective:
        tokenizer = SeqTokenizer(self._model(vocab_size))
        if self.frozen is not None:
            tokenizer.take_over(SeqTokenizer.from_pretrained(self.frozen))
        return TokenizerObjective(tokenizer, self.objective)

    def _beginning(self, name: str) -> SeqTokenizer:
        """What the run begins with. Raises MismatchError where its text has other words than the data."""
        folder = model_folder.find_model_folder(name)
        own = folder / model_folder.CAPTIONS
        if self.model.text is not None and own.is_file() and sha256_file(own) != sha256_file(self.data.captions_path):
            raise MismatchError(
                f"init_from={name}: was trained with another captions model than {self.data.captions_path}: its ids "
                f"are other words; train on data with its own: data.captions={own}"
            )
        return SeqTokenizer.from_pretrained(folder)

    def _model(self, vocab_size: int) -> TokenizerConfig:
        if self.model.text is None:
            return self.model
        return self.model.model_copy(update={"text": self.model.text.model_copy(update={"vocab_size": vocab_size})})

    def _caption_levels(self) -> int | None:
        """As many as starts are named for."""
        asked = (self.objective.contrast, self.model.writer, self.objective.match)
        return next((len(part.level_starts) for part in asked if part and part.level_starts), None)

    def parameters(self) -> tuple[int, str]:
        notes: list[str] = []
        words = vocabulary_or_stand_in(self.data.captions_path, AssumedData(), notes)
        model = self._model(words.vocab_size)
        return parameter_count(model), "; ".join(notes if model.text else [])

    def hooks(self) -> TokenizerHooks:
        return TokenizerHooks(self)

    def content(self, loader: RunLoader) -> dict[str, str]:
        found = {**super().content(loader), "captions_sha256": sha256_file(self.data.captions_path)}
        if self.init_from is not None:
            found["init_id"] = SeqTokenizer.from_pretrained(self.init_from).tokenizer_id
        if self.frozen is not None:
            found["frozen_id"] = SeqTokenizer.from_pretrained(self.frozen).tokenizer_id
        return found

    def describe_data(self, loader: RunLoader) -> str:
        return f"{super().describe_data(loader)} of {self.data.name}"

    def import_parts(self) -> None:
        if self.model.text is not None:
            import_text_tower()

    def workload(self, assumed: AssumedData, rows: int) -> Workload:
        notes: list[str] = []
        size, config = self.model.image_size, self.data.loader
        words = vocabulary_or_stand_in(self.data.captions_path, assumed, notes)
        objective = self._objective(words.vocab_size)
        kept = 3 * size**2
        folder = self.data.folder  # None: a stream, of which nothing is read for a plan
        if isinstance(words, CaptionTokenizer) and folder is not None and (folder / MANIFEST).is_file():
            read = lambda count: read_split(folder, self.data.split, words, count, config)  # noqa: E731
            return workload_of_data(objective, read, (folder, self.data.split), config, kept, rows, notes)
        levels = self._caption_levels() or config.levels or LEVELS
        notes.append(f"no data read from {self.data.name}: random pictures, {levels} caption levels that never repeat")

        def batch(count: int) -> ImageTextBatch:
            images = torch.randint(0, 256, (count, 3, size, size), generator=seeded_generator(1), dtype=torch.uint8)
            return ImageTextBatch(images=images, **random_captions(count, levels, config.max_tokens, words.vocab_size))

        return Workload(objective, batch, assumed.samples, kept, kept, None, config, notes)


def import_text_tower() -> None:
    """open_clip and what it imports, a sixth of a GB, come with the first tower."""
    text = TextConfig(vocab_size=16, width=8, heads=1, layers=1, embed_dim=8)
    SeqTokenizer(TokenizerConfig(preset="tiny", image_size=8, patch_size=4, num_latents=2, latent_dim=2, text=text))


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
        self._held_out = None if run.validation is None else _held_out(run, run.validation, self._captions)

    def on_sample(self, module: nn.Module, folder: Path, images: int) -> Shown:
        """A strip: every row one training image, then its decodings from 1, 2, 4, ... K tokens; and their PSNR."""
        from seqtok.evaluation.progress import prefix_psnr  # the judge, which training does without

        tokenizer = _tokenizer_of(module)
        batch = self._read(_SHOWN)
        latents = encode_all(tokenizer, batch)
        prefixes = prefix_lengths(latents.shape[1])
        decoded = torch.stack([decode_all(tokenizer, latents, k) for k in prefixes], 1)
        folder.mkdir(parents=True, exist_ok=True)
        sheet = strip(batch, decoded, prefixes)
        sheet.save(folder / f"images_{images:09d}.png")
        return Shown(prefix_psnr(decoded, batch, prefixes), as_tensor(sheet))

    def on_finish(self, module: nn.Module, folder: Path) -> None:
        tokenizer = _tokenizer_of(module)
        if self._run.frozen is None:  # else they came with the weights
            tokenizer.measure_latents(to_model(batch.images) for batch in self._sample(_STATISTICS))
        tokenizer.save_pretrained(folder, self._run.data.captions_path)

    def on_validate(self, module: nn.Module) -> dict[str, float]:
        """Means of the objective over held-out pictures, each with the draws of its own, and PSNR by prefix."""
        return self.held_out_values(module, _tokenizer_of(module))

    def held_out_values(self, objective: nn.Module, tokenizer: SeqTokenizer) -> dict[str, float]:
        """The same of any objective that pictures and this tokenizer have part in."""
        from seqtok.evaluation.progress import prefix_psnr  # the judge, which training does without

        assert self._held_out is not None
        shown = self._held_out.images[:_MEASURED_AT_ONCE]
        latents = encode_all(tokenizer, shown)
        prefixes = prefix_lengths(latents.shape[1])
        decoded = torch.stack([decode_all(tokenizer, latents, k) for k in prefixes], 1)
        return held_out_means(objective, self._held_out, tokenizer.device) | prefix_psnr(decoded, shown, prefixes)

    def _sample(self, count: int) -> Iterator[ImageTextBatch]:
        """Training pictures as they are, not augmented: chosen at random, of a stream as it shuffles them."""
        data = self._run.data
        if data.stream is None:
            assert data.folder is not None
            yield from sample_split(data.folder, data.split, self._captions, count, data.loader)
            return
        size = min(_MEASURED_AT_ONCE, data.stream.num_samples)
        plain = data.loader.model_copy(update={"augment": None})
        batches = StreamLoader(data.stream, self._captions, plain, seed=self._run.train.seed, global_batch=size)
        yield from islice(batches.iterate(), min(count, data.stream.num_samples) // size)

    def _read(self, limit: int) -> Tensor:
        data = self._run.data
        if data.stream is not None:
            share = {"seed": 0, "global_batch": 1}
            return StreamLoader(data.stream, self._captions, data.loader, **share).first(limit).images
        assert data.folder is not None
        return read_split(data.folder, data.split, self._captions, limit, data.loader).images


def _held_out(run: TokenizerRun, config: ValidationConfig, captions: CaptionTokenizer) -> ImageTextBatch:
    """Held-out pictures as they are. Raises DataError or ConfigError."""
    folder = config.folder or run.data.folder
    if folder is None:
        raise ConfigError("validation.folder: a stream has no held-out split; name a folder of shards that has one")
    plain = run.data.loader.model_copy(update={"augment": None})
    return read_split(folder, config.split, captions, config.samples, plain)


def _tokenizer_of(module: nn.Module) -> SeqTokenizer:
    if not isinstance(module, TokenizerObjective):
        raise TypeError(f"expected a TokenizerObjective, got {type(module).__name__}")
    return module.tokenizer.eval()
