"""SeqGenerator: text -> ordered latents. The public door of this room.

A model folder holds config.json (settings and LatentSpec), model.safetensors, captions.model and README.md.
Nothing in it is ever unpickled.

Shapes: B prompts, K latents of D channels, k <= K.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ar_model.backbone import Backbone
from ar_model.config import GeneratorConfig
from ar_model.heads.base import Head
from ar_model.heads.build import build_head
from ar_model.sampling import SampleConfig
from ar_model.sequences.base import SequenceVariant, trim
from ar_model.sequences.build import build_sequence
from data_pipelines.captions.tokenizer import PAD, CaptionTokenizer
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation import fingerprint, model_folder
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.layers.randomness import Draws

KIND, FORMAT = "seqtok sequence model", 2
Score = Callable[[Tensor], Tensor]  # latents (B, k, D), as the tokenizer's `decode` takes them -> (B,), more is better


class SeqGenerator(nn.Module):
    """A causal Transformer with a head, the latents it speaks of, and the words it understands."""

    def __init__(self, config: GeneratorConfig, spec: LatentSpec, captions: CaptionTokenizer) -> None:
        super().__init__()
        self.config, self.spec, self.captions = config, spec, captions
        self.backbone = Backbone(config, captions.vocab_size, spec.length, spec.dim)
        self.head: Head = build_head(config.head, config.width, spec.dim)
        self.sequence: SequenceVariant = build_sequence(config.sequence)

    @property
    def model_id(self) -> str:
        """Hash of settings and weights, as a tokenizer has one. Hashes the weights: keep it rather than ask twice."""
        return fingerprint.of_model(self.config.identity(), self.state_dict())

    @property
    def device(self) -> torch.device:
        return self.backbone.token_in.weight.device

    def sample(
        self,
        prompts: Sequence[str],
        config: SampleConfig | None = None,
        *,
        seed: int = 0,
        num_tokens: int | None = None,
        batch: int = 256,
        candidates: int = 1,
        score: Score | None = None,
        **changes: Any,
    ) -> Tensor:
        """Latents of pictures of the prompts, as the tokenizer's `decode` takes them: (B, k, D) float32.

        `changes` are keys of SampleConfig over those of `config`: guidance=2.5, flow={"steps": 20}. An empty prompt
        asks for any picture. k is `num_tokens` (a prefix is a picture, too) or K. A row
        depends on its prompt, how often the same one stood before it, and `seed`; not on the other prompts,
        nor on `batch`, the number of prompts computed at once. Of several `candidates`, each drawn as one alone would
        be and the first of them that very one, every row keeps the best by `score`.
        """
        tokens = self.spec.length if num_tokens is None else num_tokens
        if not 1 <= tokens <= self.spec.length:
            raise ConfigError(f"num_tokens={tokens}: choose from 1 to {self.spec.length}")
        config = (config or SampleConfig()).changed(**changes)
        return best_of(lambda n: self._draw(prompts, config, seed, tokens, batch, None, n), candidates, score)

    def complete(
        self,
        latents: Tensor,
        prompts: Sequence[str] | None = None,
        config: SampleConfig | None = None,
        *,
        seed: int = 0,
        batch: int = 256,
        candidates: int = 1,
        score: Score | None = None,
        **changes: Any,
    ) -> Tensor:
        """Keep the first tokens of pictures and draw the rest: (B, k, D), k < K, as `encode` gives them -> (B, K, D).

        So a prefix is shown as the pictures that agree with it, each of them sharp, where decoding it alone shows
        their mean. Without prompts the rest is drawn from the tokens alone. Guidance insists on prompt and tokens where
        the model has learnt to do without either (`prefix_dropout`), else on the prompt, if there is one.
        A row depends on its latents, its prompt, how often the same prompt stood before it, and `seed`. The other
        arguments are those of `sample`.
        """
        if latents.ndim != 3 or latents.shape[2] != self.spec.dim or latents.shape[1] > self.spec.length:
            raise ConfigError(
                f"latents of shape {tuple(latents.shape)}: (B, k, {self.spec.dim}) with k <= {self.spec.length} "
                "are completed"
            )
        count, known = latents.shape[:2]
        if prompts is not None and len(prompts) != count:
            raise ConfigError(f"{len(prompts)} prompts for {count} rows of latents; give one each, or none")
        config = (config or SampleConfig()).changed(**changes)
        if prompts is None:
            prompts = [""] * count
            config = config if self.sequence.prefix_dropout else config.changed(guidance=1.0)
        given = self.spec.normalise(latents.to(self.device).float())
        tokens = self.spec.length
        drawn = best_of(lambda n: self._draw(prompts, config, seed, tokens, batch, given, n), candidates, score)
        return torch.cat([latents.to(drawn), drawn[:, known:]], 1)  # what was kept comes back bit for bit

    def _draw(
        self,
        prompts: Sequence[str],
        config: SampleConfig,
        seed: int,
        tokens: int,
        batch: int,
        given: Tensor | None,
        number: int,
    ) -> Tensor:
        """`given` (B, k, D) standardised; -> (B, tokens, D), as the tokenizer's `decode` takes them. `number`: of the
        candidate, each with noise of its own."""
        if batch < 1:
            raise ConfigError(f"batch={batch}: at least one prompt is computed at once")
        text_ids = self.encode_prompts(prompts)
        own = of_rows(text_ids.tolist(), seed, self.device)
        parts = [torch.empty(0, tokens, self.spec.dim, device=self.device)]
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            parts.append(
                self.sequence.sample(
                    self.backbone,
                    self.head,
                    trim(text_ids[rows]),
                    Draws(seed, own.epoch[rows] + (number << 32), own.index[rows]),
                    config,
                    self.spec.length,
                    tokens,
                    None if given is None else given[rows],
                )
            )
        return self.spec.denormalise(torch.cat(parts))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """-> (B, T) int64, T tokens of the longest. Raises ConfigError for a prompt that is too long."""
        rows = [self.captions.encode(prompt) for prompt in prompts]
        limit = self.config.max_text_tokens
        for prompt, ids in zip(prompts, rows, strict=True):
            if len(ids) > limit:
                raise ConfigError(f"prompt of {len(ids)} tokens, at most {limit} are read: {prompt[:80]!r}")
        longest = max((len(ids) for ids in rows), default=1) or 1
        padded = [ids + [PAD] * (longest - len(ids)) for ids in rows]
        return torch.tensor(padded, dtype=torch.int64, device=self.device).reshape(len(rows), longest)

    def save_pretrained(self, path: Path | str) -> None:
        """Write the model folder."""
        folder, weights = Path(path), self.state_dict()
        parts = {
            "generator": self.config.model_dump(mode="json"),
            "latents": self.spec.to_json(),
            "captions_sha256": self.captions.sha256,
        }
        self.captions.save(folder / model_folder.CAPTIONS)
        parameters = sum(tensor.numel() for tensor in weights.values())
        card = _model_card(self.config, self.spec, self.captions.vocab_size, parameters)
        model_folder.write_model_folder(folder, KIND, FORMAT, parts, weights, card)

    @classmethod
    def from_pretrained(cls, path: Path | str) -> Self:
        """A local model folder or a hub id, on the CPU, in eval mode. Raises DataError, ConfigError or
        MismatchError naming the file that is wrong."""
        folder = model_folder.find_model_folder(path)
        parts, where = model_folder.read_config(folder, KIND, FORMAT), str(folder / model_folder.CONFIG)
        config = GeneratorConfig.parse(model_folder.read_section(parts, "generator", folder), where)
        spec = LatentSpec.from_json(model_folder.read_section(parts, "latents", folder), where)
        captions = CaptionTokenizer.load(folder / model_folder.CAPTIONS)
        if captions.sha256 != parts.get("captions_sha256"):
            raise MismatchError(
                f"{folder / model_folder.CAPTIONS}: not the text model that this model was trained with; "
                "put the original file back"
            )
        model = cls(config, spec, captions)
        model_folder.load_weights(model, folder)
        return model.eval()


def best_of(draw: Callable[[int], Tensor], candidates: int, score: Score | None) -> Tensor:
    """Of every row the best of some drawings; where two are as good, the earlier. `draw`: number -> (B, k, D)."""
    if candidates < 1:
        raise ConfigError(f"candidates={candidates}: at least one is drawn")
    best = draw(0)
    if candidates == 1:
        return best
    if score is None:
        raise ConfigError(f"candidates={candidates}: say by `score` which of them is the best")
    highest = score(best).to(best.device)
    for number in range(1, candidates):
        other = draw(number)
        value = score(other).to(best.device)
        better = value > highest
        best = torch.where(better[:, None, None], other, best)
        highest = torch.where(better, value, highest)
    return best


def of_rows(prompts: Sequence[Sequence[int]], seed: int, device: torch.device | None = None) -> Draws:
    """One row per prompt (token ids, PAD allowed), named by its ids and by how often they stood before it.

    So a prompt's sample does not depend on its neighbours, and a prompt given twice gives two samples.
    """
    seen: Counter[bytes] = Counter()
    index, epoch = [], []
    for prompt in prompts:
        digest = hashlib.sha256(repr([i for i in prompt if i != PAD]).encode()).digest()
        index.append(int.from_bytes(digest[:8], "little", signed=True))
        epoch.append(seen[digest])
        seen[digest] += 1
    int64 = torch.int64
    return Draws(seed, torch.tensor(epoch, dtype=int64, device=device), torch.tensor(index, dtype=int64, device=device))


def parameter_count(config: GeneratorConfig, vocab_size: int, length: int, dim: int) -> int:
    """Weights of such a model over `length` latents of `dim` channels, without room for them."""
    with torch.device("meta"):
        parts = (
            Backbone(config, vocab_size, length, dim),
            build_head(config.head, config.width, dim),
            build_sequence(config.sequence),
        )
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def _model_card(config: GeneratorConfig, spec: LatentSpec, vocab_size: int, parameters: int) -> str:
    """README.md of the model folder, in the words that the hub and a stranger expect."""
    head = config.head
    return f"""---
library_name: seqtok
pipeline_tag: text-to-image
---
# Sequence model of seqtok

Text becomes ordered image latents: {spec.length} tokens of {spec.dim} channels, drawn one by one.
Any prefix of them is an image.

| | |
| --- | --- |
| parameters | {parameters / 1e6:.2f} M |
| Transformer | {config.depth} layers of width {config.width}, {config.heads} heads |
| head | {head.kind}, {head.depth} layers of width {head.width} |
| vocabulary | {vocab_size} sentencepiece tokens |
| latents of tokenizer | `{spec.tokenizer_id}` |

```python
from ar_model import SeqGenerator

generator = SeqGenerator.from_pretrained("this folder")
latents = generator.sample(["a prompt in the words of the training captions"], guidance=3.0, seed=0)
```
The latents become pictures with the tokenizer named above, and with no other one.
"""
