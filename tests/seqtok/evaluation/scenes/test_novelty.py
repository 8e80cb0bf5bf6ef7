"""How new a scene is: copies have no distance, and captions that training had are counted by number of shapes."""

from __future__ import annotations

import pytest
import torch

from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.evaluation.scenes.novelty import by_number_of_shapes, nearest_distances, novelty
from tests.seqtok.evaluation.toy import SIZE, held_out

SCENES = held_out(60)
PICTURES = real_pictures(SCENES, SIZE)


def test_the_nearest_is_found_and_its_distance_is_in_levels():
    training = real_pictures(held_out(150, seed=8), SIZE)
    training[70] = PICTURES[3]
    training[71] = (PICTURES[4].int() + 2).clamp(max=255).to(torch.uint8)
    found = nearest_distances(PICTURES, training)
    differences = (PICTURES[:, None].float() - training[None].float()).flatten(2).square().mean(2).sqrt()
    assert torch.allclose(found, differences.min(1).values, atol=0.05)
    assert found[3] < 0.05
    assert found[4] == pytest.approx(2.0, abs=0.01)


def test_copies_of_training_pictures_are_nearer_than_held_out_ones_are():
    training = real_pictures(held_out(150, seed=8), SIZE)
    found = novelty(SCENES, training[:60], PICTURES, training, [SCENES[0].captions[3]])
    assert found["distance"]["drawn"] < 0.05 < found["distance"]["held_out"]
    known = [scene.captions[3] == SCENES[0].captions[3] for scene in SCENES]
    assert found["captions"]["all"] == pytest.approx(sum(known) / len(known))
    assert set(found["captions"]) == {"1", "2", "3", "all"}


def test_right_pictures_by_number_of_shapes():
    verdicts = [{"everything": len(scene.shapes) == 2} for scene in SCENES]
    assert by_number_of_shapes(verdicts, SCENES) == {"1": 0.0, "2": 1.0, "3": 0.0}
