"""How good a model is that is still being trained: figures that cost seconds.

Shapes: B samples, K latents of D channels, P prefix lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ar_model import SeqGenerator
from ar_model.heads.flow import FlowHead
from ar_model.sequences.base import Roles
from data_pipelines.scenes import make_scene
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import PrefixTokenizer, decode_all
from seqtok.evaluation.metrics.reconstruction import psnr
from seqtok.evaluation.metrics.sets.frechet import frechet_distance
from seqtok.evaluation.scenes.generation import judge, read_pictures
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.scoring import FINEST
from seqtok_core.layers.randomness import Draws

_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def latent_frechet(generator: SeqGenerator, drawn: Tensor, real: Tensor) -> float:
    """Fréchet distance of two sets of latents (B, K, D), standardised: no network looks at pictures."""
    return frechet_distance(*(generator.spec.normalise(each).flatten(1) for each in (drawn, real)))


@torch.no_grad()
def losses(generator: SeqGenerator, prompts: Sequence[str], latents: Tensor) -> dict[str, float]:
    """Where the loss is: by place, z_1, z_2, z_3 and z_4, z_5 to z_8, ..., and with a flow head by time (0 noise, 1
    data). latents (B, K, D) of pictures that the prompts describe; the same noise every time."""
    z = generator.spec.normalise(latents.to(generator.device).float())
    rows = torch.arange(len(z), device=z.device)
    draws, prompted = Draws(0, torch.zeros_like(rows), rows), torch.ones_like(rows, dtype=torch.bool)
    text_ids = generator.encode_prompts(prompts)
    slots = generator.sequence.arrange(generator.backbone, z, None, text_ids, Roles(prompted), draws)
    h = generator.backbone(slots.x, slots.positions, slots.mask)
    each = generator.head.loss(h[:, slots.latents], z, draws) if slots.loss is None else slots.loss(h)
    edges = [0, *prefix_lengths(z.shape[1])]
    found = {
        f"loss_z{first + 1}" + (f"_{last}" if last > first + 1 else ""): float(each[:, first:last].mean())
        for first, last in pairwise(edges)
    }
    if slots.loss is None and isinstance(generator.head, FlowHead):
        t = torch.tensor(_TIMES, device=z.device).expand(len(z), -1)
        by_time = generator.head.loss_at(h[:, slots.latents], z, t, draws).mean((0, 2))
        found |= {f"loss_t{at:g}": float(value) for at, value in zip(_TIMES, by_time, strict=True)}
    return found


def everything_right(generator: SeqGenerator, tokenizer: PrefixTokenizer, reader: SceneReader, count: int) -> float:
    """Share of `count` scenes of the val split whose picture, drawn without guidance, shows all that the finest caption
    says."""
    scenes = [make_scene(0, index, "val") for index in range(count)]
    latents = generator.sample([scene.captions[FINEST] for scene in scenes], guidance=1.0).cpu()
    verdicts = judge(read_pictures(reader, decode_all(tokenizer, latents, latents.shape[1])), scenes)
    return sum(verdict["everything"] for verdict in verdicts) / len(verdicts)


def prefix_psnr(decoded: Tensor, originals: Tensor, prefixes: Sequence[int]) -> dict[str, float]:
    """decoded (B, P, 3, H, W) and originals (B, 3, H, W) uint8 -> {"psnr_1": dB, ...}, means over pictures."""
    return {f"psnr_{k}": float(psnr(decoded[:, i], originals).mean()) for i, k in enumerate(prefixes)}
