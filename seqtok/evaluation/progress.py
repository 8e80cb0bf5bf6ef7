"""How good a model is that is still being trained: figures that cost seconds.

Shapes: B samples, K latents of D channels, P prefix lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ar_model import SeqGenerator
from data_pipelines.scenes import make_scene
from seq_tokenizer.prefixes import PrefixTokenizer, decode_all
from seqtok.evaluation.metrics.frechet import frechet_distance
from seqtok.evaluation.metrics.reconstruction import psnr
from seqtok.evaluation.scenes.generation import judge, read_pictures
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.scoring import FINEST


def latent_frechet(generator: SeqGenerator, drawn: Tensor, real: Tensor) -> float:
    """Fréchet distance of two sets of latents (B, K, D), standardised: no network looks at pictures."""
    return frechet_distance(*(generator.spec.normalise(each).flatten(1) for each in (drawn, real)))


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
