"""The optimizer: Muon's core against its definition and the library's, AdamW against torch's, the groups."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqtok_core.training import TrainConfig
from seqtok_core.training.optimizer.layout import Layout, each_cut, rows_cut_evenly
from seqtok_core.training.optimizer.optim import SplitOptimizer, parameter_groups
from seqtok_core.training.optimizer.orthogonal import orthogonalise

SHAPES = [(24, 24), (16, 64), (64, 16), (20, 30), (24, 24), (1, 8)]


def matrices(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_orthogonalise_keeps_singular_vectors_and_levels_singular_values():
    for matrix, answer in zip(matrices(), orthogonalise(matrices()), strict=True):
        u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.mT @ answer @ vh.mT / max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        found = inner.diagonal()
        assert (inner - found.diag()).abs().max() < 1e-4
        well = values > 0.05 * values.norm()  # tiny ones need more steps than five
        assert ((found[well] > 0.6) & (found[well] < 1.3)).all()


def test_orthogonalise_agrees_with_torch_muon_within_bf16():
    from torch.optim._muon import _zeropower_via_newtonschulz

    for matrix, answer in zip(matrices(1), orthogonalise(matrices(1)), strict=True):
        theirs = _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).float()
        ours = answer / max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_a_batch_of_equal_shapes_changes_nothing():
    together = orthogonalise(matrices(2))
    for matrix, answer in zip(matrices(2), together, strict=True):
        torch.testing.assert_close(orthogonalise([matrix])[0], answer, rtol=1e-4, atol=1e-5)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 8)
        self.layer = nn.Linear(8, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.head(self.layer(self.table(ids)).tanh()), ids)


def optimizer_of(module: nn.Module, **settings: object) -> SplitOptimizer:
    config = TrainConfig(images=80, batch=8, **settings)  # type: ignore[arg-type]
    groups = parameter_groups(module.named_parameters(), {"table.weight", "head.weight"}, config)
    return SplitOptimizer(groups, config, guarded=True)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for step in range(steps):
        ids = torch.randint(10, (8,), generator=torch.Generator().manual_seed(step))
        module(ids).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_groups_follow_the_objective():
    optimizer = optimizer_of(Small(), weight_decay=0.1)
    found = {group["title"]: (group["names"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {
        "matrices": (["layer.weight"], 0.1),
        "weights": (["table.weight", "head.weight"], 0.1),
        "gains": (["layer.bias", "head.bias"], 0.0),
    }


def test_an_unknown_excluded_name_is_refused():
    with pytest.raises(ValueError, match=r"hed\.weight"):
        parameter_groups(Small().named_parameters(), {"hed.weight"}, TrainConfig(images=8, batch=8))


def test_without_muon_it_is_torch_adamw_bit_for_bit():
    ours, theirs = Small(), Small()
    train(ours, optimizer_of(ours, muon_lr=None, lr=1e-2, weight_decay=0.1, clip=None))
    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    train(theirs, torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), fused=True))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_muon_steps_follow_torch_muon():
    ours, theirs = Small(), Small()
    train(ours, optimizer_of(ours, lr=1e-2, muon_lr=0.02, weight_decay=0.1, clip=None))
    matrix = torch.optim.Muon([theirs.layer.weight], lr=0.02, weight_decay=0.1)
    rest = torch.optim.AdamW(
        [
            {"params": [theirs.table.weight, theirs.head.weight], "weight_decay": 0.1},
            {"params": [theirs.layer.bias, theirs.head.bias], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    for step in range(5):
        ids = torch.randint(10, (8,), generator=torch.Generator().manual_seed(step))
        theirs(ids).backward()
        matrix.step(), rest.step(), theirs.zero_grad()
    start = Small().layer.weight
    moved = theirs.layer.weight - start
    assert (ours.layer.weight - theirs.layer.weight).norm() < 0.06 * moved.norm()  # bf16, five steps


def test_clipping_equals_torch_clipping():
    ours, theirs = Small(), Small()
    train(ours, optimizer_of(ours, muon_lr=None, lr=1e-2, weight_decay=0.0, clip=0.1), steps=1)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    theirs(torch.randint(10, (8,), generator=torch.Generator().manual_seed(0))).backward()
    nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
    optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_not_finite_changes_nothing():
    module = Small()
    optimizer = optimizer_of(module)
    train(module, optimizer, steps=2)
    before = {name: p.clone() for name, p in module.named_parameters()}
    state = {name: optimizer.state[p]["exp_avg"].clone() for name, p in module.named_parameters()}
    module(torch.arange(8)).backward()
    module.head.bias.grad[3] = float("nan")
    optimizer.step()
    assert optimizer.overflow
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name])
        assert torch.equal(optimizer.state[p]["exp_avg"], state[name])


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=6),
    st.integers(1, 5),
    st.sampled_from(["even", "each"]),
)
@settings(max_examples=100, deadline=None)
def test_every_value_of_every_parameter_lies_in_exactly_one_place(shapes, world, form):
    sizes = [torch.Size(shape) for shape in shapes]
    names = [str(i) for i in range(len(sizes))]
    total = sum(size.numel() for size in sizes)
    partition = -(-total // world) + 1  # ZeRO pads
    if form == "even":
        layout = rows_cut_evenly(names, sizes, partition, 0, world)
    else:
        layout = each_cut(names, sizes, 0, world)
    taken = set()
    for entry in layout.entries:
        values = [v for piece in entry.pieces for v in range(piece.start, piece.start + piece.numel)]
        assert values == list(range(entry.shape.numel()))
        for piece in entry.pieces:
            places = {(piece.rank, piece.offset + i) for i in range(piece.numel)}
            assert not places & taken
            taken |= places
    assert all(0 <= owner < world for owner in layout.owners)


def test_one_process_collects_and_scatters_by_views():
    sizes = [torch.Size((2, 3)), torch.Size((4,))]
    layout: Layout = rows_cut_evenly(["a", "b"], sizes, 12, 0, 1)
    flat = torch.arange(12.0)
    whole = layout.collect(flat)
    assert torch.equal(whole[0], torch.arange(6.0).view(2, 3))
    target = torch.zeros(12)
    layout.scatter(whole, target)
    assert torch.equal(target[:10], flat[:10])
    assert not target[10:].any()
    assert torch.equal(layout.assemble(flat)["b"], torch.arange(6.0, 10.0))
