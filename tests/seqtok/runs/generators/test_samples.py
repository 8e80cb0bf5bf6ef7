"""What a generator's run draws on its way: the same every time, scored against the real latents and by a reader."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig
from ar_model.sequences.base import Roles
from seqtok.evaluation import progress
from seqtok.evaluation.readers.folder import FORMAT
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_folder import KIND, load_reader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.runs.generators import pairs
from seqtok.runs.kinds import load_kind
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import CAPTIONS, LENGTH, latent_spec, random_latents, toy_generator
from tests.seqtok.commands.test_checkpoint_commands import runs, settings  # noqa: F401 (a fixture)
from tests.seqtok.commands.test_commands import TINY


def hooks(real: Tensor) -> pairs.GeneratorHooks:
    found = pairs.GeneratorHooks.__new__(pairs.GeneratorHooks)
    found._tokenizer = found._reader = None
    found._prompts, found._real = CAPTIONS * 8, real
    return found


def test_latents_drawn_by_the_right_law_are_near_and_others_far(tmp_path: Path) -> None:
    model = toy_generator()
    objective = GeneratorObjective(model, GeneratorObjectiveConfig(), latent_spec())
    own = model.sample(CAPTIONS * 8, guidance=1.0)
    near, far = (hooks(real).on_sample(objective, tmp_path, 64).scores for real in (own, own + 3.0))
    assert near["latent_frechet"] == pytest.approx(0, abs=1e-3), "the same prompts and noise again"
    assert far["latent_frechet"] > 10
    assert not list(tmp_path.iterdir()), "without a tokenizer there are no pictures"
    few = hooks(own[:1])
    few._prompts = CAPTIONS[:1]
    assert few.on_sample(objective, tmp_path, 64) is None


@pytest.mark.parametrize("changes", [{}, {"head": {"kind": "mse"}}, {"sequence": {"kind": "full_image"}}])
def test_losses_are_told_by_place_and_by_time(changes: dict[str, object]) -> None:
    model = toy_generator(**changes)
    z = random_latents(4)
    found = progress.losses(model, CAPTIONS, z)
    places = {"loss_z1": 1, "loss_z2": 1, "loss_z3_4": 2, "loss_z5_6": 2}
    assert places.keys() <= found.keys()
    assert (found.keys() - places.keys() == {f"loss_t{t}" for t in (0.1, 0.3, 0.5, 0.7, 0.9)}) == (not changes)
    assert found == progress.losses(model, CAPTIONS, z)
    if changes:
        return
    text, yes = model.encode_prompts(CAPTIONS), torch.ones(4, dtype=torch.bool)
    slots = model.sequence.arrange(model.backbone, model.spec.normalise(z), None, text, Roles(yes), Draws.alike(0, 4))
    h = model.backbone(slots.x, slots.positions, slots.mask)[:, slots.latents]
    draws = Draws(0, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    whole = model.head.loss(h, model.spec.normalise(z), draws).mean(0)
    by_place = [found[name] for name in places]
    assert sum(a * n for a, n in zip(by_place, places.values(), strict=True)) == pytest.approx(
        float(whole.sum()), rel=1e-4
    )
    assert found["loss_z1"] == pytest.approx(float(whole[0]), rel=1e-4)
    alone = model.head.loss_at(h, model.spec.normalise(z), torch.full((4, 5), 0.7), draws)
    assert alone.shape == (4, 5, LENGTH)
    assert found["loss_t0.7"] == pytest.approx(alone[:, 3].mean().item(), rel=1e-4), "the same noise, the fourth of it"


def test_with_a_tokenizer_there_are_pictures_and_a_reader_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = GeneratorObjective(toy_generator(), GeneratorObjectiveConfig(), latent_spec())
    found = hooks(objective.generator.sample(CAPTIONS * 8))
    found._tokenizer, found._reader = object(), object()
    monkeypatch.setattr(pairs, "decode_all", lambda tokenizer, z, k: torch.zeros(len(z), 3, 8, 8, dtype=torch.uint8))
    monkeypatch.setattr(progress, "decode_all", lambda tokenizer, z, k: z)
    monkeypatch.setattr(progress, "read_pictures", lambda reader, pictures: list(range(len(pictures))))
    monkeypatch.setattr(progress, "make_scene", lambda seed, index, split: SimpleNamespace(captions=CAPTIONS))
    monkeypatch.setattr(progress, "judge", lambda readings, scenes: [{"everything": i % 4 == 0} for i in readings])
    shown = found.on_sample(objective, tmp_path, 64)
    assert shown.scores["everything_right"] == 0.25
    assert shown.pictures.dtype == torch.uint8
    assert shown.pictures.shape[0] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["images_000000064.png"]


def test_captions_that_are_cut_for_training_are_no_prompts(runs, tmp_path: Path) -> None:  # noqa: F811
    """A prompt is never cut: what does not fit would end the run at its first pictures."""
    short = ["data.loader.max_tokens=8", "model.max_text_tokens=8"]
    run = load_kind(pairs.GeneratorRun, TINY / "tiny-generator.yaml", [*settings(runs / "latents", tmp_path), *short])
    objective, _ = run.build()
    found = run.hooks()
    assert len(found._prompts) > 1
    assert len(found._prompts) == len(found._real)
    shown = found.on_sample(objective, tmp_path, 16)
    assert shown is not None
    assert "latent_frechet" in shown.scores


def test_a_reader_without_what_draws_pictures_is_refused() -> None:
    with pytest.raises(ConfigError, match="reader: reads pictures, which the tokenizer draws"):
        load_kind(pairs.GeneratorRun, TINY / "tiny-generator.yaml", ["reader=somewhere"])


def test_a_reader_is_read_whatever_its_settings(tmp_path: Path) -> None:
    config = ReaderConfig(width=16)
    reader = SceneReader(config.width)
    parts = {"reader": config.model_dump(mode="json")}
    model_folder.write_model_folder(tmp_path / "reader", KIND, FORMAT, parts, reader.state_dict(), "")
    same = load_reader(tmp_path / "reader").state_dict()
    assert all(torch.equal(value, same[name]) for name, value in reader.state_dict().items())
    with pytest.raises(DataError):
        load_reader(tmp_path / "none")
