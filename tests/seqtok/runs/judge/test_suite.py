"""Suites: contestants of one size that differ in their order alone, cheats that are caught, a table that repeats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data_pipelines.samples import ImageTextBatch, to_model
from data_pipelines.scenes import make_scene
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.tokenizer import parameter_count
from seqtok.commands.data.app import app as data_app
from seqtok.evaluation.ordering.table import FIXED
from seqtok.evaluation.scenes.generation import real_pictures
from seqtok.runs.judge.orders.contest import require_apart, require_steady
from seqtok.runs.judge.orders.contestants import contestants
from seqtok.runs.judge.orders.suite import SuiteConfig
from seqtok.runs.settings import read_values
from seqtok_core.foundation.errors import ConfigError, DataError, SeqtokError
from seqtok_core.foundation.files import read_json, write_json
from seqtok_core.training.costs.flops import new_counter

ALL = list(contestants(16, (1, 1, 3, 5)))


def shipped(**changes: Any) -> SuiteConfig:
    return SuiteConfig.parse({**read_values("ordering-scenes"), **changes}, "test")


@pytest.mark.parametrize("name", ALL)
def test_every_contestant_is_a_run_of_the_shipped_suite(name: str):
    suite = shipped(contestants=[name])
    tokenizer, generator = suite.tokenizer_run(name, 1), suite.generator_run(name, 1)
    assert (tokenizer.train.seed, generator.train.seed) == (1, 1)
    assert (tokenizer.model.num_latents, tokenizer.model.latent_dim) == (16, 8)
    assert (tokenizer.model.text is not None) == suite.contestant(name).taught


def picture_part(config: Any) -> tuple[int, int]:
    """Weights that are not the text's, and operations there and back."""
    model = SeqTokenizer(config.model_copy(update={"text": None, "writer": None, "readout": "prefix"}))
    with new_counter() as counter:
        model.decode(model.encode(torch.zeros(1, 3, config.image_size, config.image_size)))
    return parameter_count(model.config), counter.get_total_flops()


@pytest.mark.parametrize("name", [*FIXED, "scales"])
def test_fixed_orders_are_as_large_and_as_dear_as_the_learned_one(name: str):
    suite = shipped()
    own, its = (picture_part(suite.tokenizer_run(each, 0).model) for each in (name, "text_on_every_prefix"))
    assert own == pytest.approx(its, rel=0.05)


def test_levels_stay_in_their_order_on_the_way_to_a_contest(tmp_path: Path):
    suite = SuiteConfig.parse({**read_values("ordering-cifar"), "data": str(tmp_path)}, "test")
    write_json(tmp_path / "suite.json", suite.model_dump(mode="json"))
    levels, _ = SuiteConfig.parse(read_json(tmp_path / "suite.json"), "again").levels()
    assert list(levels or ()) == ["coarse", "middle", "label"]


def test_a_wrong_name_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean raster"):
        shipped(contestants=["rastr"])


def pictures(count: int, split: str = "train") -> ImageTextBatch:
    scenes = [make_scene(0, index, split) for index in range(count)]  # type: ignore[arg-type]
    none = torch.zeros(count, 1, 1, dtype=torch.int64)
    return ImageTextBatch(
        images=real_pictures(scenes, 16),
        text_ids=none,
        level_mask=none[..., 0].bool(),
        caption_ids=none[..., 0] - 1,
        epoch=none[:, 0, 0],
        index=none[:, 0, 0],
        keys=[f"{split}-{index}" for index in range(count)],
    )


def test_a_test_picture_that_was_trained_on_is_named():
    train, test = pictures(8), pictures(4, "test")
    require_apart([train], test)
    leaked = replace(test, images=torch.cat([test.images[:3], train.images[5:6]]))
    with pytest.raises(DataError, match="test-3"):
        require_apart([train], leaked)


class NeighbourReader:
    """A cheat: its latents know the mean of the batch."""

    device = torch.device("cpu")

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels + pixels.mean(0, keepdim=True)).flatten(2)


class PixelReader(NeighbourReader):
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(2)


def test_latents_that_depend_on_other_pictures_are_refused():
    require_steady(PixelReader(), pictures(5).images)
    with pytest.raises(SeqtokError, match="other company"):
        require_steady(NeighbourReader(), pictures(5).images)
    assert to_model(pictures(1).images).shape == (1, 3, 16, 16)


def small_suite(folder: Path, out: str, **changes: Any) -> Path:
    """Two contestants of a minute, or others."""
    small = ["train.batch=16", "train.warmup_images=16", "train.images=96", "train.ema_decay=null"]
    alone = ["objective.text_to_image=1.0", "objective.guided_targets=1", "model.writer=shared"]
    alone += ["model.sequence.caption_levels=0", "model.sequence.caption_dropout=0", "objective.condition_dropout=0.3"]
    values = {
        "kind": "ordering",
        "data": str(folder / "data"),
        "out": str(folder / out),
        "contestants": ["text_on_every_prefix", "raster"],
        "seeds": [0],
        "precision": "fp32",
        "tokenizer": {"config": "demo-tokenizer", "settings": [*small, "model.image_size=16", "model.patch_size=4"]},
        "generator": {
            "config": "demo-generator",
            "settings": [*small, *alone],
        },
        "judge": {
            "fit": 32,
            "test": 16,
            "pictures": 16,
            "prompts": 4,
            "drawn_scenes": 2,
            "reader": {"scenes": 64, "images": 256, "width": 8},
        },
    }
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    """One thread each: several that wait for each other on cores where others work take many times as long."""
    command, alone = [sys.executable, "-m", "seqtok", "evaluate", "ordering", str(path)], {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, env=os.environ | alone, **pipes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_stopped_in_the_middle_it_goes_on_to_the_same_table(tmp_path: Path):
    scenes = ["scenes", str(tmp_path / "data"), "--train", "800", "--val", "32", "--test", "32", "--size", "16"]
    for words in (scenes, ["text", str(tmp_path / "data"), "--vocab", "512"]):
        data_app(words, standalone_mode=False)
    whole = start(small_suite(tmp_path, "whole"))
    assert "ordering.html" in whole.communicate()[0]
    assert whole.returncode == 0
    path = small_suite(tmp_path, "parts")
    first = start(path)
    begun = tmp_path / "parts" / "raster-0" / "tokenizer"
    while not begun.is_dir() and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert "the same command continues" in first.communicate()[0]
    assert first.returncode == 75
    again = start(path)
    assert again.wait() == 0, again.communicate()[0]
    tables = [json.loads((tmp_path / out / "ordering.json").read_text())["figures"] for out in ("whole", "parts")]
    assert tables[0] == tables[1]
