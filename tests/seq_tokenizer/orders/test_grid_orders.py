"""Given orders: permutations of cells, and the encoder whose tokens belong to those cells."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
import torch

from seq_tokenizer import SeqTokenizer, TokenizerConfig, TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.encoders.grid import cell_patches
from seq_tokenizer.orders.grid import ORDERS, OrderName, places
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.layers.attention import CrossAttention
from seqtok_core.layers.embed import patchify
from tests.seq_tokenizer.toy import CONFIG, toy_batch, toy_pixels, toy_tokenizer

GRIDS = ((1, 1), (1, 5), (3, 1), (2, 3), (4, 4), (5, 7), (8, 8))
every_order = pytest.mark.parametrize("name", ORDERS)


def grid_tokenizer(order: str = "raster", num_latents: int = 8, text: bool = False, **encoder: Any) -> SeqTokenizer:
    """Of 4 x 4 patches: eight tokens are 2 x 4 cells of two patches."""
    return toy_tokenizer(
        text=text, num_latents=num_latents, encoder={"kind": "grid", "order": order, **encoder}, encoder_layers=3
    )


@every_order
@pytest.mark.parametrize("grid", GRIDS)
def test_an_order_is_a_permutation_and_places_undo_it(name: OrderName, grid: tuple[int, int]):
    order = ORDERS[name](*grid, 3)
    assert sorted(order) == list(range(grid[0] * grid[1]))
    assert [order[place] for place in places(order)] == sorted(order)
    assert [places(order)[cell] for cell in order] == sorted(order)
    assert ORDERS[name](*grid, 3) == order


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("raster", "012345678"),
        ("reversed_raster", "876543210"),
        ("column_major", "036147258"),
        ("snake", "012543678"),
        ("spiral_in", "012587634"),
        ("spiral_out", "436785210"),
        ("z_order", "013425678"),
        ("corner_distance", "013426578"),
    ],
)
def test_orders_of_nine_cells(name: OrderName, cells: str):
    """0 1 2 / 3 4 5 / 6 7 8, written out by hand."""
    assert "".join(map(str, ORDERS[name](3, 3, 0))) == cells


def test_the_z_curve_of_sixteen_cells_is_mortons():
    assert ORDERS["z_order"](4, 4, 0) == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


@pytest.mark.parametrize("name", ["snake", "spiral_in", "spiral_out"])
@pytest.mark.parametrize("grid", GRIDS)
def test_neighbours_of_a_walk_touch(name: OrderName, grid: tuple[int, int]):
    steps = pairwise(divmod(cell, grid[1]) for cell in ORDERS[name](*grid, 0))
    assert {abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in steps} <= {1}


def test_the_random_order_is_its_seeds():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    orders = [tuple(ORDERS["random"](4, 4, seed)) for seed in range(50)]
    assert len(set(orders)) == 50
    assert tuple(ORDERS["random"](4, 4, 7)) == orders[7]
    assert torch.equal(torch.get_rng_state(), before)
    with torch.device("meta"):  # where models are built to be counted
        assert tuple(ORDERS["random"](4, 4, 7)) == orders[7]


def test_every_order_has_its_name():
    assert set(get_args(OrderName)) == set(ORDERS)


def test_cells_share_out_the_patches():
    assert cell_patches((2, 2), 4, 4).int().tolist()[1] == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    for cells, rows, columns in (((2, 4), 4, 4), ((2, 4), 6, 5), ((3, 3), 4, 4)):
        owned = cell_patches(cells, rows, columns)
        assert (owned.sum(0) == 1).all()
        assert (owned.sum(1) >= 1).all()
    with pytest.raises(DataError, match="1 x 4 patches is smaller than the 2 x 4 cells"):
        cell_patches((2, 4), 1, 4)


@every_order
def test_a_token_reads_the_patches_of_its_own_cell(name: OrderName):
    """By gradient: what the trunk gave for a patch reaches exactly the token whose cell holds the patch."""
    model = grid_tokenizer(name)
    order, owned = ORDERS[name](2, 4, 0), cell_patches((2, 4), 4, 4)
    context = torch.randn(1, 16, 32, requires_grad=True)
    queries = torch.randn(1, 8, 32)
    mask = model.encoder.sees_patches(8, 4, 4, context.device)
    for token, cell in enumerate(order):
        out = model.encoder.readers[0].cross(queries, context, mask)[:, token]
        (gradient,) = torch.autograd.grad(out.square().sum(), context)
        assert torch.equal(gradient[0].abs().sum(1) > 0, owned[cell])


@pytest.mark.parametrize("name", ["raster", "z_order", "spiral_out"])
def test_a_token_knows_its_own_cell_and_earlier_ones(name: OrderName):
    """By gradient from the whole encoder to the pixels, without the trunk, which shows every patch all others."""
    encoder = grid_tokenizer(name).encoder
    encoder.trunk = torch.nn.ModuleList()
    owned, pixels = cell_patches((2, 4), 4, 4), toy_pixels(1).requires_grad_()
    h = encoder(pixels)
    for token in range(8):
        (gradient,) = torch.autograd.grad(h[:, token].square().sum(), pixels, retain_graph=True)
        read = patchify(gradient, 4)[0].abs().sum(1) > 0
        assert torch.equal(read, owned[encoder.order[: token + 1]].any(0))


def test_cross_attention_through_a_mask_is_that_of_the_visible_context():
    torch.manual_seed(0)
    cross, x, context = CrossAttention(16, 2), torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]]).bool()
    whole = cross(x, context, mask)
    for row, visible in enumerate(mask):
        alone = cross(x[:, row : row + 1], context[:, visible])
        torch.testing.assert_close(whole[:, row : row + 1], alone)


@every_order
def test_fewer_tokens_are_the_first(name: OrderName):
    model, pixels = grid_tokenizer(name), toy_pixels()
    full = model.encode(pixels)
    for k in (1, 3, 8):
        torch.testing.assert_close(model.encode(pixels, k), full[:, :k])


def test_no_token_sees_a_later_query_and_later_ones_see_it():
    model, pixels = grid_tokenizer("snake"), toy_pixels()
    before = model.encode(pixels)
    with torch.no_grad():
        model.encoder.queries[3].normal_(generator=torch.Generator().manual_seed(9))
    after = model.encode(pixels)
    assert torch.equal(after[:, :3], before[:, :3])
    assert all(not torch.allclose(after[:, i], before[:, i], atol=1e-4) for i in range(3, 8))


def test_a_prefix_is_an_image_and_later_latents_do_not_matter():
    model = grid_tokenizer("spiral_out")
    z = model.encode(toy_pixels())
    spoiled = z.clone()
    spoiled[:, 3:] = 100.0
    assert torch.equal(model.decode(spoiled, 3), model.decode(z, 3))


def test_one_cell_is_a_q_former():
    """The same weights from the same seed, and the same bits: whatever differs between orders is the order."""
    one, other = grid_tokenizer(num_latents=1), toy_tokenizer("qformer", text=False, num_latents=1, encoder_layers=3)
    assert torch.equal(one.encode(toy_pixels()), other.encode(toy_pixels()))
    ordered = [grid_tokenizer("z_order"), grid_tokenizer("random")]
    models = [*ordered, toy_tokenizer("qformer", text=False, num_latents=8, encoder_layers=3)]
    assert len({sum(p.numel() for p in model.parameters()) for model in models}) == 1


def test_other_sizes_than_the_training_one_can_be_encoded():
    assert grid_tokenizer().encode(torch.rand(2, 3, 24, 20)).shape == (2, 8, 3)
    with pytest.raises(DataError, match="smaller than the 2 x 4 cells"):
        grid_tokenizer().encode(torch.rand(2, 3, 4, 16))


def test_cells_of_the_users_own_shape():
    assert grid_tokenizer().encoder.cells == (2, 4)
    assert grid_tokenizer(grid=[4, 2]).encoder.cells == (4, 2)
    assert grid_tokenizer(num_latents=16).encoder.cells == (4, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "num_latents=6 tokens are no grid of cells of the 4 x 4 patches .* choose one of 1, 2, 4, 8, 16"),
        ({"encoder": {"grid": [3, 2]}}, "encoder.grid=3 x 2 does not divide the 4 x 4 patches"),
        ({"encoder": {"grid": [2, 2]}}, "encoder.grid=2 x 2 has 4 cells, num_latents=6"),
        ({"encoder": {"order": "spiral"}}, "encoder.order"),
        ({"encoder": {"order": "random_per_image"}}, "encoder.order"),
    ],
)
def test_a_grid_that_does_not_fit_says_the_way_out(values: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        TokenizerConfig.parse({**CONFIG, **values, "encoder": {"kind": "grid", **values.get("encoder", {})}})


def test_a_given_order_is_trained_as_the_learned_one():
    objective = TokenizerObjective(grid_tokenizer("column_major", text=True), TokenizerTrainingConfig())
    losses = objective(toy_batch())
    losses["loss"].backward()
    assert {"pixel_loss", "text_loss_0"} <= losses.keys()
    assert {name for name, p in objective.named_parameters() if p.grad is None} == set()
    assert "tokenizer.encoder.queries" in objective.muon_excluded()


@every_order
def test_a_token_looks_into_its_own_cell_alone(name: OrderName):
    encoder = grid_tokenizer(name).encoder
    looks = encoder.looks(toy_pixels(2))
    own = cell_patches((2, 4), 4, 4)[encoder.order]
    assert torch.equal(looks > 0, own.expand(2, -1, -1))
    torch.testing.assert_close(looks.sum(-1), torch.ones(2, 8))
