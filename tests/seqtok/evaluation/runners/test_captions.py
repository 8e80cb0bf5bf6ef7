"""Captions judged: a model that knows the scenes is right in all, and one that says another's caption is not."""

from __future__ import annotations

from torch import Tensor

from seqtok.evaluation.runners.captions import CaptionEvaluation, evaluate_captions
from seqtok.evaluation.scenes.scoring import FINEST, LEVELS
from tests.seqtok.evaluation.toy import LENGTH, LosslessTokenizer, held_out

SCENES = held_out(60)


class Knowing:
    """Says the captions of the scenes in their order, those of a neighbour from short prefixes."""

    caption_levels, captions_from_prefixes = 4, True

    def __init__(self, whole: int, shift: int = 0) -> None:
        self.whole, self.shift = whole, shift

    def caption(self, latents: Tensor, config: object, *, level: int | None, seed: int) -> list[str]:
        assert level is not None
        shift = self.shift or int(latents.shape[1] < self.whole)
        return [SCENES[(i + shift) % len(SCENES)].captions[level] for i in range(len(latents))]


def test_true_captions_are_right_and_those_of_neighbours_are_chance() -> None:
    tokenizer, whole = LosslessTokenizer(), LENGTH
    results, captioned = evaluate_captions(tokenizer, Knowing(whole), SCENES, 16, CaptionEvaluation())
    assert all(row["value"] == 1.0 for row in results["captions"].values())
    assert results["captions_right"] == 1.0
    assert captioned.captions == [scene.captions[FINEST] for scene in SCENES]
    assert all(all(verdict.values()) for verdict in captioned.verdicts)
    assert list(results["captions_by_prefix"]) == list(LEVELS)
    for level, points in results["captions_by_prefix"].items():
        assert points[str(whole)] == 1.0
        assert points["1"] < (0.6 if level == "count" else 0.2)
    assert "beams" not in results["protocol"]["captions"]
    wrong, _ = evaluate_captions(tokenizer, Knowing(whole, shift=1), SCENES, 16, CaptionEvaluation())
    assert wrong["captions"]["everything"]["value"] < 0.05
    assert wrong["captions_right"] < 0.5
