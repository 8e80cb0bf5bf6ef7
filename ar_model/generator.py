"""SeqGenerator: text -> ordered latents, and back. The public door of this room.

A model folder holds config.json (settings and LatentSpec), model.safetensors, captions.model and README.md.
Nothing in it is ever unpickled.

Shapes: B prompts, K latents of D channels, k <= K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, Unpack

import torch
from torch import Tensor, nn

from ar_model.backbone import Backbone
from ar_model.card import model_card
from ar_model.config import GeneratorConfig
from ar_model.fit import score_captions, score_drawings, write_captions
from ar_model.heads.base import Head, NoHead
from ar_model.heads.build import build_head
from ar_model.sampling import SampleConfig, Score, beam_search, best_of, of_rows, require_batch
from ar_model.sequences.base import SequenceVariant, Weak, trim
from ar_model.sequences.build import build_sequence
from ar_model.sequences.reading import hidden_states
from ar_model.text.prompts import as_prompts, prompt_ids
from ar_model.text.writing import CaptionConfig, caption_level
from data_pipelines.captions.tokenizer import PAD, CaptionTokenizer
from seq_tokenizer.latents import LatentSpec, prefix_lengths
from seqtok_core.foundation import fingerprint, model_folder
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.foundation.model_folder import HubOptions
from seqtok_core.layers.randomness import Draws

KIND, FORMAT = "seqtok sequence model", 2


class SeqGenerator(nn.Module):
    """A causal Transformer with a head, the latents it speaks of, and the words it understands."""

    def __init__(self, config: GeneratorConfig, spec: LatentSpec, captions: CaptionTokenizer) -> None:
        super().__init__()
        self.config, self.spec, self.captions = config, spec, captions
        self.backbone = Backbone(config, captions.vocab_size, spec.length, spec.dim)
        self.sequence: SequenceVariant = build_sequence(config.sequence, config.width, spec)
        self._weak: dict[str, SeqGenerator] = {}  # other models, no part of this one
        self.head: Head = NoHead() if self.sequence.denoises else build_head(config.head, config.width, spec)

    @property
    def model_id(self) -> str:
        """Hash of settings and weights, as a tokenizer has one. Hashes the weights: keep it rather than ask twice."""
        return fingerprint.of_model(self.config.identity(), self.state_dict())

    @property
    def device(self) -> torch.device:
        return self.backbone.token_in.weight.device

    @property
    def head_kind(self) -> str:
        """Whose part of SampleConfig counts."""
        return self.head.kind

    @property
    def writes(self) -> bool:
        """Whether it has learnt to write captions: the words' odds are even before any training."""
        return bool(self.backbone.writing.text_out.weight.any())

    @property
    def caption_levels(self) -> int:
        """Levels of captions that can be asked for; 0: it chooses its words."""
        return self.sequence.caption_levels

    @property
    def captions_from_prefixes(self) -> bool:
        """Whether it has learnt to write from the first tokens alone."""
        return self.sequence.caption_prefixes > 0

    def sample(
        self,
        prompts: str | Sequence[str],
        config: SampleConfig | None = None,
        *,
        seed: int = 0,
        num_tokens: int | None = None,
        batch: int = 256,
        candidates: int = 1,
        beams: int = 1,
        score: Score | None = None,
        on_token: Callable[[Tensor], None] | None = None,
        **changes: Any,
    ) -> Tensor:
        """Latents of pictures of the prompts, as the tokenizer's `decode` takes them: (B, k, D) float32. A text is one.

        `changes` are keys of SampleConfig over those of `config`: guidance=2.5, flow={"steps": 20}. An empty prompt
        asks for any picture. k is `num_tokens` (a prefix is a picture, too) or K. A row depends on its prompt, how
        often the same one stood before it, and `seed`; not on the other prompts, nor on `batch`, how many are computed
        at once. Of several `candidates`, the first of them what one alone would be, a row keeps the best by `score`.
        Several `beams`: so many beginnings of each picture are kept, judged at 1, 2, 4, ... tokens among `candidates`
        ways to go on from each. `on_token` is handed the latents so far, (b, k, D) of the b rows computed at once.
        """
        tokens = self.spec.length if num_tokens is None else num_tokens
        if not 1 <= tokens <= self.spec.length:
            raise ConfigError(f"num_tokens={tokens}: choose from 1 to {self.spec.length}")
        config, prompts = (config or SampleConfig()).changed(**changes), as_prompts(prompts)

        def go_on(kept: Tensor | None, length: int, number: int) -> Tensor:
            given = None if kept is None else self.spec.normalise(kept)
            return self._draw(prompts, config, seed, length, batch, given, number, on_token)

        if beams == 1:
            return best_of(lambda number: go_on(None, tokens, number), candidates, score)
        return beam_search(go_on, prefix_lengths(tokens), beams, candidates, score)

    def complete(
        self,
        latents: Tensor,
        prompts: str | Sequence[str] | None = None,
        config: SampleConfig | None = None,
        *,
        seed: int = 0,
        batch: int = 256,
        candidates: int = 1,
        score: Score | None = None,
        on_token: Callable[[Tensor], None] | None = None,
        **changes: Any,
    ) -> Tensor:
        """Keep the first tokens of pictures and draw the rest: (B, k, D), k < K, as `encode` gives them -> (B, K, D).

        So a prefix is shown as the pictures that agree with it, each of them sharp, where decoding it alone shows
        their mean. A text is the prompt of every row; without prompts the rest is drawn from the tokens alone.
        Guidance insists on prompt and tokens where the model has learnt to do without either (`prefix_dropout`), else
        on the prompt, if there is one. A row depends on its latents, its prompt, how often the same prompt stood before
        it, and `seed`. The other arguments are those of `sample`.
        """
        self.spec.require_latents(latents, 0, "completed")
        count, known = latents.shape[:2]
        prompts = [prompts] * count if isinstance(prompts, str) else prompts
        if prompts is not None and len(prompts) != count:
            raise ConfigError(f"{len(prompts)} prompts for {count} rows of latents; give one each, or none")
        config = (config or SampleConfig()).changed(**changes)
        if prompts is None:
            prompts = [""] * count
            config = config if self.sequence.prefix_dropout or config.weak else config.changed(guidance=1.0)
        given = self.spec.normalise(latents.to(self.device).float())
        tokens = self.spec.length
        hides = {"hides": True} if self.sequence.prefix_dropout else {}  # a variant without it has no such argument
        draw = lambda n: self._draw(prompts, config, seed, tokens, batch, given, n, on_token, **hides)  # noqa: E731
        drawn = best_of(draw, candidates, score)
        return torch.cat([latents.to(drawn), drawn[:, known:]], 1)  # what was kept comes back bit for bit

    @torch.inference_mode()
    def caption(
        self,
        latents: Tensor,
        config: CaptionConfig | None = None,
        *,
        level: int | Literal["coarse", "fine"] | None = None,
        seed: int = 0,
        batch: int = 256,
        **changes: Any,
    ) -> list[str]:
        """What pictures show, in words: latents (B, k, D), as `encode` gives them -> B captions.

        Fewer than K tokens where the model has learnt to write from prefixes (`caption_prefixes`). `level`, 0 or
        "coarse" to the last or "fine", where levels were told in training (`caption_levels`); by default the finest.
        Of several `config.candidates` a picture keeps the one that it is drawn from best. `changes` are keys of
        CaptionConfig over those of `config`: beams=4. A caption depends on its own latents, and where words are drawn
        on `seed` and on how often the same latents stood before it.
        """
        z, config = self._standardised(latents, batch, 1), (config or CaptionConfig()).changed(**changes)
        own = of_rows([row.tobytes() for row in z.cpu().numpy()], seed, self.device)
        asked = caption_level(level, self.caption_levels), self.config.max_text_tokens
        return [self.captions.decode(list(ids)) for ids in write_captions(self, z, own, config, *asked, batch)]

    @torch.inference_mode()
    def score_captions(
        self,
        latents: Tensor,
        captions: str | Sequence[str],
        *,
        level: int | Literal["coarse", "fine"] | None = None,
        batch: int = 256,
    ) -> Tensor:
        """log p(caption | picture) in nats, of every caption for every picture: (B, k, D) and C captions -> (B, C)
        float32. What fits best is the class of a picture, with no classifier trained."""
        asked, text = caption_level(level, self.caption_levels), self.encode_prompts(captions)
        return score_captions(self, self._standardised(latents, batch, 1), text, asked, batch)

    @torch.inference_mode()
    def score_drawings(
        self, latents: Tensor, captions: str | Sequence[str], *, seed: int = 0, batch: int = 256
    ) -> Tensor:
        """How well each picture is drawn from each caption, the better the higher: (B, K, D) and C captions -> (B, C)
        float32, minus the loss of the latents, a mean over tokens. All captions meet the same noise, by `seed`."""
        z = self._standardised(latents, batch)
        own = of_rows([row.tobytes() for row in z.cpu().numpy()], seed, self.device)
        return score_drawings(self, z, own, self.encode_prompts(captions), batch)

    @torch.inference_mode()
    def states(self, latents: Tensor, *, batch: int = 256) -> Tensor:
        """What the Transformer makes of pictures: (B, K, D), as `encode` gives them -> (blocks, B, K, W), hidden states
        after every block, read without a prompt. State i has seen z_1 ... z_i, where latents are drawn in groups all of
        its group, and where they are denoised together all of them."""
        parts = self._standardised(latents, batch).split(batch)
        return torch.cat([hidden_states(self.backbone, self.sequence.read(self.backbone, z)) for z in parts], 1)

    def _standardised(self, latents: Tensor, batch: int, least: int = 0) -> Tensor:
        """Of pictures, so many of their tokens at least: 0 stands for all."""
        require_batch(batch)
        self.spec.require_latents(latents, least or self.spec.length, "read")
        return self.spec.normalise(latents.to(self.device).float())

    def _draw(
        self,
        prompts: Sequence[str],
        config: SampleConfig,
        seed: int,
        tokens: int,
        batch: int,
        given: Tensor | None,
        number: int,
        on_token: Callable[[Tensor], None] | None = None,
        **guides: Any,
    ) -> Tensor:
        """`given` (B, k, D) standardised; -> (B, tokens, D), as `decode` takes them. `number`: of the candidate.
        `guides`: what else the sequence is told of guidance."""
        require_batch(batch)
        if config.weak and config.guided:
            guides["weak"] = self._weaker(config.weak)
        text_ids = self.encode_prompts(prompts)
        own = of_rows([repr([i for i in row if i != PAD]).encode() for row in text_ids.tolist()], seed, self.device)
        parts = [torch.empty(0, tokens, self.spec.dim, device=self.device)]
        for rows in (slice(start, start + batch) for start in range(0, len(prompts), batch)):
            draws = Draws(seed, own.epoch[rows] + (number << 32), own.index[rows])
            kept, ids, latents = None if given is None else given[rows], trim(text_ids[rows]), []
            asked = (ids, draws, config, self.spec.length, tokens, kept)
            for z in self.sequence.draw(self.backbone, self.head, *asked, **guides):
                latents.append(z)
                if on_token is not None:
                    on_token(self.spec.denormalise(torch.stack(latents, 1)))
            parts.append(torch.stack(latents, 1))
        return self.spec.denormalise(torch.cat(parts))

    def _weaker(self, name: str) -> Weak:
        """Opened once. Raises ConfigError for another kind of model, MismatchError for other latents or words."""
        if name not in self._weak:
            other = SeqGenerator.from_pretrained(name)
            if not all(each.sequence.takes_weak and each.head_kind == "flow" for each in (self, other)):
                raise ConfigError(f"weak={name}: guidance by a weaker model is for next_token and a flow head, of both")
            other.spec.require_same(self.spec, f"the weaker model {name}", "this sequence model")
            if other.captions.sha256 != self.captions.sha256:
                raise MismatchError(f"weak={name}: was trained with another captions model: its ids are other words")
            self._weak[name] = other
        return Weak(self._weak[name].backbone.to(self.device), self._weak[name].head.to(self.device))

    def encode_prompts(self, prompts: str | Sequence[str]) -> Tensor:
        """-> (B, T) int64, T tokens of the longest; a text is one prompt. Raises ConfigError for one that is too long,
        and warns of words that no caption of the training had."""
        rows = prompt_ids(self.captions, as_prompts(prompts), self.config.max_text_tokens)
        return torch.tensor(rows, dtype=torch.int64, device=self.device).reshape(len(rows), len(rows[0]) if rows else 1)

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
        card = model_card(self.config, self.spec, self.captions.vocab_size, parameters)
        model_folder.write_model_folder(folder, KIND, FORMAT, parts, weights, card)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Put the model folder on the hub as `name`, owner/name; see `push_model`."""
        return model_folder.push_model(self.save_pretrained, name, **options)

    @classmethod
    def from_pretrained(
        cls, path: Path | str, *, device: torch.device | str | None = None, **hub: Unpack[HubOptions]
    ) -> Self:
        """A local model folder or a hub id (`HubOptions`: how it is asked), in eval mode, on `device` or the CPU.
        Raises DataError, ConfigError or MismatchError naming the file that is wrong."""
        folder = model_folder.find_model_folder(path, **hub)
        parts, where = model_folder.read_config(folder, KIND, FORMAT), str(folder / model_folder.CONFIG)
        config = GeneratorConfig.parse(model_folder.read_section(parts, "generator", folder), where)
        spec = LatentSpec.from_json(model_folder.read_section(parts, "latents", folder), where)
        captions = CaptionTokenizer.load(model_folder.captions_of(folder))
        if captions.sha256 != parts.get("captions_sha256"):
            raise MismatchError(
                f"{folder / model_folder.CAPTIONS}: not the text model that this model was trained with; "
                "put the original file back"
            )
        return model_folder.load_model(lambda: cls(config, spec, captions), folder, device)
