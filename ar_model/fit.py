"""How well captions and pictures fit, asked both ways of one model: how likely it writes the caption of the picture,
and how well it draws the picture from the caption.

Drawing is the stricter judge: what captions usually say counts for nothing there, so that a combination that no caption
of the training had is told from the usual ones (as diffusion models classify: Li et al. 2023, arXiv:2303.16203).

Shapes: B pictures, C captions, N pairs, T text tokens, k of K latents of D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ar_model.backbone import Backbone
from ar_model.heads.base import Head
from ar_model.sequences.base import Roles, SequenceVariant, trim
from ar_model.sequences.cache import ReadOnce
from ar_model.text.prompts import padded
from ar_model.text.writing import CaptionConfig, write
from data_pipelines.captions.tokenizer import PAD
from seq_tokenizer.latents import LatentSpec
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws

Ids = tuple[int, ...]  # a caption as the model reads it


class ReadsAndDraws(Protocol):
    """A SeqGenerator."""

    spec: LatentSpec
    backbone: Backbone
    sequence: SequenceVariant
    head: Head

    @property
    def writes(self) -> bool: ...


@torch.inference_mode()
def score_captions(model: ReadsAndDraws, z: Tensor, text: Tensor, level: int, batch: int) -> Tensor:
    """z (B, k, D) standardised, text (C, T) -> (B, C) float32, log p(caption | picture) in nats."""
    _require_writer(model, told := z.shape[1])
    z = torch.cat([z, z.new_zeros(len(z), model.spec.length - told, model.spec.dim)], 1)
    pairs = torch.cartesian_prod(torch.arange(len(z)), torch.arange(len(text))).to(z.device)
    parts = (part.unbind(1) for part in pairs.split(batch) if len(pairs))
    scores = [_log_probs(model, z[picture], told, text[caption], level) for picture, caption in parts]
    return torch.cat([z.new_zeros(0), *scores]).view(len(z), len(text))


def score_drawings(model: ReadsAndDraws, z: Tensor, own: Draws, text: Tensor, batch: int) -> Tensor:
    """z (B, K, D) standardised, `own` random numbers of the B, text (C, T) -> (B, C) float32, minus the loss of each
    picture's latents."""
    rows = [row for row in range(len(z)) for _ in text]
    losses = drawing_losses(model, z, own, batch, rows, text.repeat(len(z), 1))
    return -torch.tensor(losses, device=z.device).view(len(z), len(text))


def write_captions(
    model: ReadsAndDraws, z: Tensor, own: Draws, config: CaptionConfig, level: int, most: int, batch: int
) -> list[Ids]:
    """z (B, k, D) standardised, `own` random numbers of the B -> a caption of at most `most` tokens for each, of
    several candidates the one that the picture is drawn from best."""
    _require_writer(model, z.shape[1])
    limit = min(config.max_tokens or most, most)
    offered: list[list[Ids]] = [[] for _ in config.ways()]
    for start in range(0, len(z), batch):
        rows = slice(start, start + batch)
        for number, way in enumerate(config.ways()):
            asked = (level, model.spec.length, limit, config.guidance)
            writer = model.sequence.guided_writer(model.backbone, z[rows], *asked)
            draws = Draws(own.seed, own.epoch[rows] + (number << 32), own.index[rows])
            offered[number] += [tuple(found.ids) for found in write(writer, way, draws, limit)]
    if config.candidates == 1:
        return offered[0]
    return chosen_by_drawing(model, z, own, batch, list(zip(*offered, strict=True)))


@torch.inference_mode()
def drawing_losses(
    model: ReadsAndDraws, z: Tensor, own: Draws, batch: int, rows: Sequence[int], text: Tensor
) -> list[float]:
    """z (B, k, D) standardised, `own` random numbers of the B, N pairs: `rows` of z and text (N, T) -> N means over
    tokens of the loss that the model is trained with.

    Noise and times are the picture's own, the same for all captions: what is left to tell them apart is what they say.
    """
    found: list[float] = []
    if not rows:
        return found
    for part, ids in zip(torch.tensor(rows, device=z.device).split(batch), text.split(batch), strict=True):
        draws = Draws(own.seed, own.epoch[part], own.index[part])
        roles = Roles(torch.ones(len(part), dtype=torch.bool, device=z.device))
        slots = model.sequence.arrange(model.backbone, z[part], None, trim(ids), roles, draws)
        h = model.backbone(slots.x, slots.positions, slots.mask)
        each = model.head.loss(h[:, slots.latents], z[part], draws) if slots.loss is None else slots.loss(h)
        found += each.mean(1).tolist()
    return found


def chosen_by_drawing(
    model: ReadsAndDraws, z: Tensor, own: Draws, batch: int, offered: Sequence[Sequence[Ids]]
) -> list[Ids]:
    """Of the captions that each of B pictures is offered the one that it is drawn from best."""

    def losses(rows: Sequence[int], captions: Sequence[Ids]) -> list[float]:
        return drawing_losses(model, z, own, batch, rows, torch.tensor(padded(captions), device=z.device))

    return best_captions(offered, losses)


def best_captions(
    offered: Sequence[Sequence[Ids]], losses: Callable[[Sequence[int], Sequence[Ids]], Sequence[float]]
) -> list[Ids]:
    """Of the captions that each picture is offered the one with the least loss, the earlier where two are alike.
    `losses`: numbers of pictures and a caption for each -> losses; each pair is asked for once."""
    pairs = [(row, caption) for row, captions in enumerate(offered) for caption in dict.fromkeys(captions)]
    found = dict(zip(pairs, losses([row for row, _ in pairs], [caption for _, caption in pairs]), strict=True))
    return [min(captions, key=lambda caption: found[row, caption]) for row, captions in enumerate(offered)]


def _require_writer(model: ReadsAndDraws, told: int) -> None:
    """Raise ConfigError where the model cannot write from the first `told` tokens."""
    if not model.writes:
        raise ConfigError("this model has not learnt to write; train one with text_to_image below 1")
    if told < model.spec.length and not model.sequence.caption_prefixes:
        known = f"{told} tokens: this model writes from all {model.spec.length}"
        raise ConfigError(f"{known}; train one with caption_prefixes above 0")


def _log_probs(model: ReadsAndDraws, z: Tensor, told: int, text: Tensor, level: int) -> Tensor:
    """z (N, K, D), of which the first `told` are read, text (N, T) -> (N,)."""
    yes = torch.ones(len(z), dtype=torch.bool, device=z.device)
    levels, every = torch.full_like(yes, level, dtype=torch.int64), told == z.shape[1]
    roles = Roles(~yes, yes, levels, told=None if every else torch.full_like(levels, told))
    draws, read = Draws.alike(0, len(yes), z.device), ReadOnce()
    slots = model.sequence.arrange(model.backbone, z, None, text, roles, draws)
    assert slots.captions is not None
    model.backbone(slots.x, slots.positions, slots.mask, read)
    logits = model.backbone.writing.text_logits(slots.captions.states(model.backbone, read))[: len(yes)]
    targets = slots.captions.slots.targets[: len(yes)]  # all write, in their order; the rest fills up
    return -F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none", ignore_index=PAD).sum(1)
