"""The model folder: damaged weights are found on loading, and a kill while it is written leaves nothing for ever."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from seqtok_core.foundation import files, model_folder
from seqtok_core.foundation.errors import ConfigError, DataError


def write(folder: Path, value: float = 1.0) -> None:
    weights = {"weight": torch.full((3, 4), value), "bias": torch.zeros(3)}
    model_folder.write_model_folder(folder, "toy", 1, {"toy": {}}, weights, "# Toy")


def load(folder: Path) -> nn.Module:
    module = nn.Linear(4, 3)
    model_folder.load_weights(module, folder)
    return module


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("place", [-1, -20, -56])
def test_weights_that_changed_since_they_were_written_are_not_loaded(place, tmp_path):
    write(tmp_path)
    load(tmp_path)
    flip(tmp_path / "model.safetensors", place)
    with pytest.raises(DataError, match=r"model\.safetensors: its content has changed since it was written"):
        load(tmp_path)


def test_weights_of_another_model_of_the_same_shapes_are_not_loaded(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", 2.0)
    os.replace(tmp_path / "b" / "model.safetensors", tmp_path / "a" / "model.safetensors")
    with pytest.raises(DataError, match="another model's"):
        load(tmp_path / "a")


def test_a_model_that_was_written_before_there_was_a_hash_loads(tmp_path):
    write(tmp_path)
    path = tmp_path / "config.json"
    files.write_json(path, {k: v for k, v in json.loads(path.read_text()).items() if k != "weights_sha256"})
    assert load(tmp_path).weight.mean() == 1


def test_a_killed_writer_leaves_nothing_after_the_next(tmp_path):
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os.environ["SEQTOK_FAULTS"] = "weights.before_rename=kill"
            write(tmp_path)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]  # the second swept what the first had left
    model_folder.require_free(tmp_path)
    write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    with pytest.raises(ConfigError, match="is not empty"):
        model_folder.require_free(tmp_path)
