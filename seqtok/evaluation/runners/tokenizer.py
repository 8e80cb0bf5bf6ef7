"""From a tokenizer and held-out pictures to its sections of results.json.

Shapes: B pictures, K latents of D channels, L caption levels, T text tokens, E text-image space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from data_pipelines.samples import ImageTextBatch
from data_pipelines.scenes import LEVEL_LABELS
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import PrefixTokenizer, decode_all, encode_all
from seqtok.evaluation.metrics.reconstruction import reconstruction
from seqtok.evaluation.metrics.retrieval import gallery, recall, recall_chance
from seqtok.evaluation.metrics.semantics import mean_over_labels, probe_labels
from seqtok.evaluation.report import protocol
from seqtok.evaluation.scenes.scoring import LEVELS
from seqtok.evaluation.stopwatch import Stopwatch

Results = dict[str, Any]
# Names of the caption levels of drawn scenes, coarse to fine, each with the labels that speak of the same
# thing.
SCENE_LEVELS: dict[str, tuple[str, ...]] = dict(zip(LEVELS, LEVEL_LABELS, strict=True))
_BATCH = 1024  # pictures or captions embedded at once


def evaluate_tokenizer(
    tokenizer: PrefixTokenizer,
    train: ImageTextBatch,
    test: ImageTextBatch,
    *,
    levels: Mapping[str, Sequence[str]] | None = None,
    meaning: Callable[[str], str] = str,
) -> Results:
    """Reconstruction, probes and retrieval of held-out pictures against prefix length.

    `levels` names the caption levels coarse to fine, each with its labels (SCENE_LEVELS for drawn scenes,
    with `meaning=retrieval.scene_meaning`); without it every label is a level of its own. Probes are fitted
    on `train`; without labels there are none. Retrieval needs a tokenizer with a text tower and a test
    batch with captions.
    """
    watch = Stopwatch()
    with watch.stage("encode", len(train) + len(test)):
        known = encode_all(tokenizer, train.images)
        latents = encode_all(tokenizer, test.images)
    prefixes = prefix_lengths(latents.shape[1])
    with watch.stage("decode every prefix", len(test) * len(prefixes)):
        decoded = {k: decode_all(tokenizer, latents, k) for k in prefixes}
    results: Results = {
        "images": {"size": test.images.shape[-1], "test": len(test), "train": len(train)},
        "tokens": {"length": latents.shape[1], "dim": latents.shape[2]},
    }
    with watch.stage("PSNR and SSIM", len(test) * len(prefixes)):
        results |= reconstruction(decoded, test.images)
    if test.labels:
        with watch.stage("linear probes", len(train) + len(test)):
            results |= probe_section(known, train.labels, latents, test.labels, levels)
    if test.captions and getattr(tokenizer, "text", True) is not None:
        with watch.stage("retrieval", len(test)):
            results |= retrieval_section(tokenizer, latents, test, tuple(levels or ()), meaning)
    return results | {"protocol": protocol.of_tokenizer(results), "stages": watch.stages}


def probe_section(
    train: Tensor,
    train_labels: Mapping[str, Tensor],
    test: Tensor,
    test_labels: Mapping[str, Tensor],
    levels: Mapping[str, Sequence[str]] | None = None,
) -> Results:
    """Latents (N, K, D) and labels of both splits -> `probe` and `probe_chance`, each by label and by
    level."""
    labels, chance = probe_labels(train, train_labels, test, test_labels)
    named = levels or {name: (name,) for name in labels}
    alone = {name: {"chance": value} for name, value in chance.items()}
    by_level = {name: value["chance"] for name, value in mean_over_labels(alone, named).items()}
    return {
        "probe": {"labels": labels, "levels": mean_over_labels(labels, named)},
        "probe_chance": {"labels": chance, "levels": by_level},
    }


@torch.no_grad()
def retrieval_section(
    tokenizer: Any,
    latents: Tensor,
    test: ImageTextBatch,
    names: Sequence[str] = (),
    meaning: Callable[[str], str] = str,
) -> Results:
    """latents (B, K, D) -> `retrieval` by caption level and k, `retrieval_chance` and the number of
    candidates."""
    parts = [tokenizer.prefix_embeddings(part.to(tokenizer.device)).cpu() for part in latents.split(_BATCH)]
    embeddings = torch.cat(parts)  # (B, K, E)
    results: Results = {"retrieval": {}, "retrieval_chance": {}, "retrieval_candidates": {}}
    for level in range(test.level_mask.shape[1]):
        rows = test.level_mask[:, level].nonzero()[:, 0]
        if not len(rows):
            continue
        name = names[level] if level < len(names) else f"level {level + 1}"
        kept, match = gallery([test.captions[i][level] for i in rows.tolist()], meaning)
        text_ids = test.text_ids[rows[kept], level]
        texts = torch.cat([tokenizer.encode_text(ids.to(tokenizer.device)).cpu() for ids in text_ids.split(_BATCH)])
        results["retrieval"][name] = {
            str(k): recall(embeddings[rows, k - 1], texts, match) for k in prefix_lengths(latents.shape[1])
        }
        results["retrieval_chance"][name] = recall_chance(match)
        results["retrieval_candidates"][name] = {"images": len(rows), "captions": len(kept)}
    return results
