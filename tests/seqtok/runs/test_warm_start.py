"""A run that begins with the weights of a model folder, and what is said of one that does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ar_model import SeqGenerator
from data_pipelines.reading.vocabulary import train_vocabulary
from seq_tokenizer import SeqTokenizer
from seqtok.runs.base import TrainingRun
from seqtok.runs.generators.pairs import GeneratorRun
from seqtok.runs.kinds import load_kind
from seqtok.runs.tokenizer import TokenizerRun
from seqtok.runs.train import train_run
from seqtok_core.foundation.errors import ConfigError, MismatchError, SeqtokError
from tests.seqtok.commands.test_checkpoint_commands import content, runs, settings  # noqa: F401 (a fixture)
from tests.seqtok.commands.test_commands import TINY, seqtok


def run_of(kind: str, root: Path, out: Path, *words: str) -> TrainingRun:
    cls, data = (TokenizerRun, root / "scenes") if kind == "tokenizer" else (GeneratorRun, root / "latents")
    return load_kind(cls, TINY / f"tiny-{kind}.yaml", [*settings(data, out), *words])


@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_a_run_begins_with_the_weights_of_a_model_folder(kind, runs, tmp_path):  # noqa: F811
    model = runs / kind / "model"
    begun, _ = run_of(kind, runs, tmp_path / "run", f"init_from={model}").build()
    fresh, _ = run_of(kind, runs, tmp_path / "run").build()
    part = getattr(begun, kind)
    saved = type(part).from_pretrained(model).state_dict()
    assert part.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in part.state_dict().items())
    assert not all(torch.equal(value, saved[name]) for name, value in getattr(fresh, kind).state_dict().items())


@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_it_is_continued_and_exported_like_any_other(kind, runs, capsys, tmp_path):  # noqa: F811
    shutil.copytree(runs / kind / "model", tmp_path / "model")
    words = (f"init_from={tmp_path / 'model'}", "train.keep=9")
    train_run(run_of(kind, runs, tmp_path / "whole", *words))
    run = run_of(kind, runs, tmp_path / "run", *words)
    train_run(run)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000008")
    train_run(run)
    assert content(tmp_path / "run" / "model") == content(tmp_path / "whole" / "model")
    shutil.rmtree(tmp_path / "model")  # its weights have done their work
    status, _, err = seqtok(capsys, "checkpoint", "export", tmp_path / "run", tmp_path / "exported")
    assert status == 0, err
    assert content(tmp_path / "exported") == content(tmp_path / "run" / "model")


def test_other_weights_under_the_same_name_are_another_run(runs, tmp_path):  # noqa: F811
    shutil.copytree(runs / "tokenizer" / "model", tmp_path / "model")
    run = run_of("tokenizer", runs, tmp_path / "run", f"init_from={tmp_path / 'model'}")
    train_run(run)
    other = SeqTokenizer.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(tmp_path / "model", runs / "scenes" / "captions.model")
    with pytest.raises(MismatchError, match="init_id"):
        train_run(run)


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("tokenizer", ["model.width=64"], r"init_from=.* do not fit \(.*; .*model\.width: 32 there, 64 here"),
        ("tokenizer", ["model.encoder_layers=2"], r"model\.encoder_layers: 1 there, 2 here"),
        ("generator", ["model.depth=2"], r"model\.depth: 1 there, 2 here"),
        ("generator", ["init_from=/no/such"], "no such model folder"),
        ("generator", ["model.heads=1"], r"compute something else: model\.heads: 2 there, 1 here"),
        ("generator", ["model.head.prediction=data"], r"model\.head\.prediction: velocity there, data here"),
        ("tokenizer", ["frozen=somewhere"], "set one of them"),
    ],
)
def test_what_does_not_fit_is_named(kind, words, message, runs, tmp_path):  # noqa: F811
    with pytest.raises(SeqtokError, match=message):
        run_of(kind, runs, tmp_path / "run", f"init_from={runs / kind / 'model'}", *words).build()
    assert not (tmp_path / "run").exists()


def test_a_model_of_the_other_kind_or_of_other_words_or_latents_is_refused(runs, tmp_path):  # noqa: F811
    with pytest.raises(SeqtokError, match="this is not a seqtok tokenizer but a seqtok sequence model"):
        run_of("tokenizer", runs, tmp_path, f"init_from={runs / 'generator' / 'model'}").build()
    shutil.copytree(runs / "scenes", tmp_path / "scenes")
    train_vocabulary(tmp_path / "scenes", 380, overwrite=True)
    begin = f"init_from={runs / 'tokenizer' / 'model'}"
    with pytest.raises(MismatchError, match="its ids are other words"):
        run_of("tokenizer", runs, tmp_path, begin, f"data.folder={tmp_path / 'scenes'}").build()


def test_without_it_a_runs_settings_are_those_of_old(runs, tmp_path):  # noqa: F811
    assert "init_from" not in run_of("tokenizer", runs, tmp_path).model_dump(mode="json")
    with pytest.raises(ConfigError, match="did you mean init_from"):
        run_of("tokenizer", runs, tmp_path, "init_form=x")


def test_a_model_that_draws_learns_on_from_pictures_own_embeddings(runs, tmp_path):  # noqa: F811
    begun = f"init_from={runs / 'generator' / 'model'}"
    words = (begun, f"tokenizer={runs / 'tokenizer' / 'model'}", "objective.rebuild_share=0.5")
    train_run(run_of("generator", runs, tmp_path / "run", *words))
    first, plain = (SeqGenerator.from_pretrained(folder / "model") for folder in (tmp_path / "run", runs / "generator"))
    assert first.config == plain.config
    assert first.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(ConfigError, match=r"rebuild_share=0\.5: .* name it with `tokenizer`"):
        run_of("generator", runs, tmp_path / "other", begun, words[2], "tokenizer=null").build()
