"""SeqTokenizer: images -> ordered 1-D latents -> images. The public door of this room.

Shapes: B images, K latents, D channels, E text-image space.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn

from seq_tokenizer.bottlenecks.base import Bottled
from seq_tokenizer.bottlenecks.build import build_bottleneck, features_of
from seq_tokenizer.bottlenecks.discrete import DiscreteBottleneck
from seq_tokenizer.config import TokenizerConfig, tokenizer_card
from seq_tokenizer.decoders.build import build_decoder
from seq_tokenizer.encoders.build import build_encoder
from seq_tokenizer.encoders.patches import check_pixels, require_patches
from seq_tokenizer.latents import LatentSpec
from seq_tokenizer.text.readout import PrefixReadout
from seq_tokenizer.text.tower import TextTower
from seq_tokenizer.text.writer import Writer
from seqtok_core.foundation import fingerprint, model_folder
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.foundation.files import atomic_write, sha256_file
from seqtok_core.foundation.model_folder import HubOptions
from seqtok_core.layers.randomness import Draws

_OF_DECODERS = {"preset", "decoder", "decoder_layers"}  # the settings that latents do not depend on
KIND, FORMAT = "seqtok tokenizer", 2


class SeqTokenizer(nn.Module):
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder, config, features_of(config.bottleneck, config))
        self.bottleneck = build_bottleneck(config.bottleneck, config)
        self.decoder = build_decoder(config.decoder, config)
        self.text: TextTower | None = None
        if config.text is not None:
            self.text = TextTower(config.text)
            self.readout = PrefixReadout(config.num_latents, config.latent_dim, config.text.embed_dim)
            self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.writer = None if config.writer is None else Writer(config.writer, config, config.text)
        shape = (config.num_latents, config.latent_dim)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))

    @property
    def device(self) -> torch.device:
        return self.latent_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; float32 where there are none."""
        return next((parameter.dtype for parameter in self.parameters()), torch.float32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to`, `half`, `cuda` do; the statistics of latents stay float32, as latents are."""
        kept = {name: getattr(self, name) for name in ("latent_mean", "latent_std")}
        super()._apply(fn, recurse)
        for name, tensor in kept.items():
            moved = getattr(self, name)
            if moved.dtype != tensor.dtype and not tensor.is_meta:
                setattr(self, name, tensor.to(moved.device))
        return self

    def encode(self, pixels: Tensor, num_tokens: int | None = None) -> Tensor:
        """pixels (B, 3, H, W) float in [-1, 1], H and W multiples of the patch -> (B, k, D) float32, k = num_tokens
        or K. Raises ConfigError for anything else."""
        return self._bottled(pixels, num_tokens).z

    def bottle(
        self,
        pixels: Tensor,
        draws: Draws | None,
        num_tokens: int | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Bottled:
        """As `encode`, with all that the bottleneck says; with `draws` as it is in training. `states`: see Encoder."""
        if not self.bottleneck.groups:
            return self.bottleneck(self.encoder(pixels, num_tokens, **_asked(states)), draws)
        whole = self.bottleneck(self.encoder(pixels, **_asked(states)), draws)  # the first ones, too, are made of all
        z, codes = whole.z[:, :num_tokens], whole.codes if whole.codes is None else whole.codes[:, :num_tokens]
        return whole._replace(z=z, codes=codes, bits=self.bottleneck.bits(z.shape[1]))

    def decode(
        self,
        latents: Tensor,
        num_tokens: int | Tensor | None = None,
        seed: int | None = None,
        size: tuple[int, int] | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """latents (B, k, D) with k <= K, of which the first num_tokens (all, one number, or one per image) count
        -> (B, 3, H, W), about in [-1, 1]. Raises ConfigError for latents of another shape.

        `seed`: which of the pictures that the latents may mean a generative decoder draws; None: its config's. A
        picture depends on its latents and the seed alone, not on its place in the batch.
        `size`: (H, W), multiples of the patch; None: that of training. `states`: see Decoder.
        """
        count = self._require_latents(latents)
        if isinstance(num_tokens, int) and not 0 <= num_tokens <= count:
            raise ConfigError(f"num_tokens={num_tokens}: choose from 0 to {count}, the number of latents given")
        if size is not None:
            require_patches(*size, self.config.patch_size)
        draws = None if seed is None else Draws.alike(seed, len(latents), latents.device)
        length = count if num_tokens is None else num_tokens
        return self.decoder(latents.to(self.dtype), length, draws, size, **_asked(states))

    def _require_latents(self, latents: Tensor) -> int:
        """-> how many tokens there are of each picture."""
        count, config = latents.shape[1] if latents.ndim == 3 else 0, self.config
        if not 1 <= count <= config.num_latents or latents.shape[2] != config.latent_dim:
            raise ConfigError(
                f"latents of shape {tuple(latents.shape)}: (B, k, {config.latent_dim}) with k from 1 to "
                f"{config.num_latents} are read"
            )
        return count

    def take_over(self, other: SeqTokenizer) -> None:
        """Everything but the decoder becomes that of `other`, latent statistics included, and is no longer trained.

        Raises ConfigError naming the settings that differ.
        """
        own, its = (model.config.model_dump(exclude=_OF_DECODERS) for model in (self, other))
        differing = sorted(key for key in own.keys() | its.keys() if own.get(key) != its.get(key))
        if differing:
            named = "; ".join(f"{key} is {its.get(key)} there and {own.get(key)} here" for key in differing)
            raise ConfigError(f"a decoder can only be trained for a tokenizer of the same settings: {named}")
        taken = {name: value for name, value in other.state_dict().items() if not name.startswith("decoder.")}
        self.load_state_dict(taken, strict=False)
        self.requires_grad_(False)
        self.decoder.requires_grad_(True)

    def encode_codes(self, pixels: Tensor, num_tokens: int | None = None) -> Tensor:
        """As `encode`, of a tokenizer with a codebook: -> (B, k) int64, or (B, k, Q) where a token is Q > 1 entries."""
        self._codebook()
        codes = self._bottled(pixels, num_tokens).codes
        assert codes is not None
        return codes

    def decode_codes(self, codes: Tensor, num_tokens: int | Tensor | None = None) -> Tensor:
        """As `decode`, from what `encode_codes` gives."""
        return self.decode(self._codebook().look_up(codes), num_tokens)

    def codebook(self) -> Tensor:
        """-> (Q, V, D) float32: a latent is a sum of one entry of each of Q codebooks. Raises ConfigError without."""
        return self._codebook().entries().detach()

    def _codebook(self) -> DiscreteBottleneck:
        if not isinstance(self.bottleneck, DiscreteBottleneck):
            raise ConfigError(f"this tokenizer has no codebook: its bottleneck is {self.config.bottleneck.kind}")
        return self.bottleneck

    def _bottled(self, pixels: Tensor, num_tokens: int | None) -> Bottled:
        check_pixels(pixels, self.config.patch_size)
        if num_tokens is not None and not 1 <= num_tokens <= self.config.num_latents:
            raise ConfigError(f"num_tokens={num_tokens}: choose from 1 to {self.config.num_latents}")
        return self.bottle(pixels.to(self.dtype), None, num_tokens)

    def prefix_embeddings(self, latents: Tensor) -> Tensor:
        """(B, k, D) -> (B, k, E) of unit norm, in the space of `encode_text`; entry i speaks of latents 0..i. Where the
        text reads the last token alone (`readout`), only entry K - 1 says anything."""
        self._require_text()
        if self.config.readout == "last":
            last = torch.arange(latents.shape[1], device=latents.device) == self.config.num_latents - 1
            latents = latents * last[:, None]
        return self.readout(latents)

    def encode_text(self, text_ids: Tensor) -> Tensor:
        """(B, T) int64 content ids padded with 0 -> (B, E) of unit norm."""
        return self._require_text()(text_ids)

    def write(self, latents: Tensor, level: int | None = None, sure: float = 0.3) -> Tensor:
        """What a prefix says: (B, k, D) -> (B, T) int64, the ids of a caption, padded with 0.

        `level`: of the caption pyramid, 0 the coarsest; None: of each prefix the finest whose caption, as it is
        written, has at least the probability `sure`, else the coarsest; several wordings share it (docs/method.md).
        Raises ConfigError for a level or latents that there are not, DataError where the tokenizer has no writer.
        """
        if self.writer is None:
            raise DataError("this tokenizer has no writer: it was trained without `writer` and `write`")
        self._require_latents(latents)
        if not 0 < sure <= 1:
            raise ConfigError(f"sure={sure}: a probability above 0, at most 1")
        latents = latents.to(self.device, self.dtype)
        if level is None:
            return self.writer.finest(latents, sure)
        if not 0 <= level < self.writer.config.levels:
            raise ConfigError(f"level={level}: choose from 0 to {self.writer.config.levels - 1}")
        return self.writer.write(latents, level)[0]

    def _require_text(self) -> TextTower:
        if self.text is None:
            raise DataError("this tokenizer was trained without captions: it has no text-image space")
        return self.text

    @torch.no_grad()
    def measure_latents(self, pixels: Iterable[Tensor]) -> None:
        """Set the statistics that `spec` carries, from batches of training images (B, 3, H, W) in [-1, 1]."""
        total = torch.zeros_like(self.latent_mean).double()
        squares, count = torch.zeros_like(total), 0
        for batch in pixels:
            z = self.encode(batch.to(self.device)).double()
            total, squares, count = total + z.sum(0), squares + z.square().sum(0), count + len(z)
        if count < 2:
            raise ValueError("latent statistics need at least two images")
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=1e-12)
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(variance.sqrt())

    @property
    def tokenizer_id(self) -> str:
        """Hash of settings and weights: latents and the models over them name it. A setting at its default does not
        count, so a version that knows one more gives a model its old name."""
        return fingerprint.of_model(self.config.identity(), self.state_dict())

    @property
    def spec(self) -> LatentSpec:
        """What a latent sequence of this tokenizer is. Hashes the weights: keep it rather than ask twice."""
        return LatentSpec(
            length=self.config.num_latents,
            dim=self.config.latent_dim,
            mean=self.latent_mean.detach().float().cpu().clone(),
            std=self.latent_std.detach().float().cpu().clone(),
            tokenizer_id=self.tokenizer_id,
            groups=self.bottleneck.groups,
            codebook_size=self.bottleneck.codebook_size,
            codes_per_token=self.bottleneck.codes_per_token,
        )

    def save_pretrained(self, folder: Path | str, captions_model: Path | str | None = None) -> None:
        """Write the model folder; `captions_model` is the sentencepiece file that its text ids come from."""
        folder = Path(folder)
        if captions_model is not None and Path(captions_model) != folder / model_folder.CAPTIONS:
            with open(captions_model, "rb") as source, atomic_write(folder / model_folder.CAPTIONS) as stream:
                shutil.copyfileobj(source, stream)
        weights, spec = self.state_dict(), self.spec
        parts: dict[str, Any] = {"tokenizer": self.config.model_dump(mode="json"), "latents": spec.to_json()}
        if captions_model is not None:
            parts["captions_sha256"] = sha256_file(folder / model_folder.CAPTIONS)
        model_folder.write_model_folder(
            folder, KIND, FORMAT, parts, weights, tokenizer_card(self.config, spec, weights)
        )

    def push_to_hub(self, name: str, captions_model: Path | str | None = None, **options: Any) -> str:
        """Put the model folder, as `save_pretrained` writes it, on the hub as `name`, owner/name; see `push_model`."""
        return model_folder.push_model(lambda folder: self.save_pretrained(folder, captions_model), name, **options)

    @classmethod
    def from_pretrained(
        cls, path: Path | str, *, device: torch.device | str | None = None, **hub: Unpack[HubOptions]
    ) -> Self:
        """A local model folder or a hub id (`HubOptions`: how it is asked), in eval mode, on `device` or the CPU.
        Raises DataError, ConfigError or MismatchError naming the file that is wrong; captions.model must be the one
        that the tokenizer was trained with, where config.json names it."""
        folder = model_folder.find_model_folder(path, **hub)
        parts = model_folder.read_config(folder, KIND, FORMAT)
        section = model_folder.read_section(parts, "tokenizer", folder)
        model_folder.require_captions(folder, parts.get("captions_sha256"))
        config = TokenizerConfig.parse(section, str(folder / model_folder.CONFIG))
        model = model_folder.load_model(lambda: cls(config), folder, device)
        if "weights_sha256" not in parts:  # of a model from before files had hashes its id is the hash
            _require_id(model, parts.get("latents"), folder)
        return model


def _require_id(model: SeqTokenizer, latents: Any, folder: Path) -> None:
    recorded = latents.get("tokenizer_id") if isinstance(latents, dict) else None
    if recorded is not None and model.tokenizer_id != recorded:
        raise DataError(
            f"{folder / model_folder.WEIGHTS}: not what tokenizer {recorded} was made of; settings or weights have "
            "changed since they were written: put the original files back"
        )


def parameter_count(config: TokenizerConfig) -> int:
    """Weights of such a tokenizer, its text tower included, without room for them."""
    text = config.text and config.text.model_copy(update={"vocab_size": config.text.vocab_size or 1})
    with torch.device("meta"):
        model = SeqTokenizer(config.model_copy(update={"text": text}))
    return sum(parameter.numel() for parameter in model.parameters())


def _asked(states: dict[str, Tensor] | None) -> dict[str, Any]:
    """A part that hands out none is asked only by who wants some."""
    return {} if states is None else {"states": states}
