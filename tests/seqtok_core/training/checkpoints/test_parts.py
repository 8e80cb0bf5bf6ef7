"""Named pieces: the file is safetensors, and every way of cutting reads every other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from seqtok_core.foundation import files
from seqtok_core.foundation.errors import DataError
from seqtok_core.training.checkpoints import parts
from seqtok_core.training.checkpoints.keeping import Keep
from seqtok_core.training.checkpoints.named_state import kinds_by_name, pieces_of, restore
from seqtok_core.training.optimizer.layout import each_cut, rows_cut_evenly

SHAPES = {"a": (3, 5), "b": (7,), "c": (), "d": (2, 2, 3)}
GROUPS = [{"muon": True, "names": ["a"], "owner": ""}, {"muon": False, "names": ["b", "c", "d"], "owner": ""}]
KINDS = kinds_by_name(GROUPS, keeps_average=True)


def test_the_library_reads_what_we_write(tmp_path):
    pieces = {
        "weight:0:a": torch.randn(3, 5),
        "weight:4:ü": torch.randn(8)[2:7],
        "step:0:b": torch.tensor(7.0),
        "buffer:0:n": torch.tensor([3, 2**40]),
        "buffer:0:flags": torch.tensor([True, False, True]),
        "buffer:0:half": torch.randn(5).bfloat16(),
        "average:0:none": torch.empty(0),
    }
    entry = parts.write_part(tmp_path / "x.safetensors", pieces)
    assert entry["bytes"] == parts.bytes_of(pieces) == (tmp_path / "x.safetensors").stat().st_size
    assert entry["sha256"] == files.sha256_file(tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == pieces.keys()
    for key, value in pieces.items():
        assert torch.equal(found[key], value.flatten()), key
        assert found[key].dtype == value.dtype
    again = parts.write_part(tmp_path / "y.safetensors", dict(reversed(pieces.items())))
    assert again == entry


class Cut:
    """What one process of a training holds: made-up values that say where they belong."""

    def __init__(self, form: str, rank: int, world: int, fill: bool) -> None:
        self.world = SimpleNamespace(rank=rank, size=world, is_first=rank == 0)
        self.module = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.zeros(s)) for n, s in SHAPES.items()})
        self.module.register_buffer("table", torch.arange(4.0) if fill else torch.zeros(4))
        self.optimizer = SimpleNamespace(layouts={}, state={})
        for group in GROUPS:
            sizes = [torch.Size(SHAPES[name]) for name in group["names"]]
            if form == "each":
                self._flat(each_cut(group["names"], sizes, rank, world), sum(-(-s.numel() // world) for s in sizes))
            elif form == "even":
                partition = -(-sum(s.numel() for s in sizes) // world) + 1
                self._flat(rows_cut_evenly(group["names"], sizes, partition, rank, world), partition)
        if fill:
            self._fill()

    def _flat(self, layout, partition: int) -> None:
        self.optimizer.layouts[torch.zeros(partition)] = layout

    def targets(self) -> list[tuple[torch.Tensor, list[tuple[str, int, int, int]]]]:
        if not self.optimizer.layouts:
            return [(p, [(name, 0, 0, p.numel())]) for name, p in self.module.named_parameters()]
        return [
            (flat, [(e.name, p.offset, p.start, p.numel) for e in lay.entries for p in e.pieces if p.rank == lay.rank])
            for flat, lay in self.optimizer.layouts.items()
        ]

    def _fill(self) -> None:
        for tensor, spans in self.targets():
            kinds = sorted(KINDS[spans[0][0]] if spans else set())
            state = {kind: torch.zeros(() if kind == "step" else tensor.shape) for kind in kinds}
            for kind, values in [("weight", tensor.detach()), *state.items()]:
                if kind == "step":
                    values.fill_(41.0)
                    continue
                for name, offset, start, numel in spans:
                    values.view(-1)[offset : offset + numel] = expected(kind, name).flatten()[start : start + numel]
            self.optimizer.state[tensor] = state

    def check(self) -> None:
        for tensor, spans in self.targets():
            state = self.optimizer.state[tensor]
            for name, offset, start, numel in spans:
                assert state.keys() == KINDS[name]
                for kind, values in [("weight", tensor.detach()), *state.items()]:
                    if kind == "step":
                        assert float(values) == 41.0
                    else:
                        found = values.reshape(-1)[offset : offset + numel]
                        assert torch.equal(found, expected(kind, name).flatten()[start : start + numel]), (kind, name)
        steps = [s["step"] for s in self.optimizer.state.values() if "step" in s]
        assert len({s.data_ptr() for s in steps}) == len(steps)  # AdamW counts in place
        assert torch.equal(self.module.table, torch.arange(4.0))


def expected(kind: str, name: str) -> torch.Tensor:
    first = 1000 * sorted(SHAPES).index(name) + 100 * ["weight", "exp_avg", "exp_avg_sq", "average"].index(kind)
    return first + torch.arange(torch.Size(SHAPES[name]).numel(), dtype=torch.float32).view(SHAPES[name])


def save(folder: Path, form: str, world: int) -> parts.Parts:
    paths = []
    for rank in range(world):
        cut = Cut(form, rank, world, fill=True)
        paths.append(folder / parts.file_of(rank, world))
        parts.write_part(paths[-1], pieces_of(cut.optimizer, cut.module, cut.world, {}))
    return parts.Parts(paths)


FORMS = st.sampled_from(["whole", "even", "each"])


@given(FORMS, st.integers(1, 5), FORMS, st.integers(1, 5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_cut_reads_every_other(tmp_path, before, old_world, after, new_world):
    found = save(tmp_path, before, old_world)
    for rank in range(new_world):
        cut = Cut(after, rank, new_world, fill=False)
        restore(cut.optimizer, cut.module, found, KINDS)
        cut.check()


def test_a_missing_part_is_named(tmp_path):
    save(tmp_path, "even", 3)
    found = parts.Parts([tmp_path / parts.file_of(rank, 3) for rank in (0, 2)])
    cut = Cut("each", 0, 1, fill=False)
    with pytest.raises(DataError, match=r"weight of a has no values from \d+ to 15"):
        restore(cut.optimizer, cut.module, found, KINDS)


def test_what_stays_is_the_newest_and_the_first_after_each_mark():
    keep = Keep(newest=2, every=100, batch=8)
    present: list[int] = []
    for step in range(5, 66, 5):  # 40 images between two; 100 is crossed at 120, 200 at 200, 300 at 320, ...
        present.append(step)
        present = [s for s in present if s not in keep.superfluous(present)]
    assert present == [15, 25, 40, 50, 60, 65]
    assert Keep(2).superfluous([1, 2, 3]) == [1]
    assert Keep(5).superfluous([1, 2, 3]) == []
