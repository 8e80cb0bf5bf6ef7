"""Counted FLOPs equal those of the formula, and counting leaves no trace; the table knows its devices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.attention import SelfAttention
from seqtok_core.training.costs.flops import count_flops
from seqtok_core.training.costs.hardware import GPUS, known_gpu, peak_flops
from tests.seq_tokenizer.toy import toy_batch, toy_tokenizer

B, N, W, H = 3, 5, 8, 2


class Products(nn.Module):
    """A linear layer, an einsum and a convolution, dropout that draws, a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(W, W)
        self.table = nn.Parameter(torch.randn(N, W, 4))
        self.conv = nn.Conv1d(W, W, 3, padding=1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        h = self.conv(F.dropout(self.linear(x), 0.5).mT).mT
        return {"loss": torch.einsum("bnw,nwe->bne", h, self.table).square().sum()}


class Attends(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.attention = SelfAttention(W, H)
        self.mask = torch.ones(N, N, dtype=torch.bool).tril() if masked else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.attention(x, self.mask).sum()}


def test_products_einsum_and_convolution_are_counted():
    linear, einsum, conv = 2 * B * N * W * W, 2 * B * N * W * 4, 2 * B * N * W * W * 3
    # the first layer's input needs no gradient: 2 products there, 3 elsewhere
    assert count_flops(Products(), torch.randn(B, N, W)) == 2 * linear + 3 * einsum + 3 * conv


@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_on_cpu_is_counted(masked: bool):
    """Projections 4 W^2 per token in, forward and weights' gradients; queries times keys and weights times values,
    then five products backward, of which torch counts the recomputed scores."""
    projections = 2 * (2 * B * N * 3 * W * W) + 3 * (2 * B * N * W * W)
    scores = 2 * B * N * N * W
    assert count_flops(Attends(masked), torch.randn(B, N, W)) == projections + (2 + 5) * scores


def test_multiplied_out_attention_is_counted():
    """In bfloat16 on CPU attention is written out: two products forward, four backward."""
    projections = 2 * (2 * B * N * 3 * W * W) + 3 * (2 * B * N * W * W)
    with torch.autocast("cpu", torch.bfloat16):
        counted = count_flops(Attends(True), torch.randn(B, N, W))
    assert counted == projections + 6 * (2 * B * N * N * W)


def test_an_objective_with_text_is_counted():
    """Six FLOPs per weight and use at least: the tower's words and the readout's einsum are among them."""
    objective = TokenizerObjective(toy_tokenizer(), TokenizerTrainingConfig())
    plain = TokenizerObjective(toy_tokenizer(text=False), TokenizerTrainingConfig())
    batch = toy_batch(8)
    counted, without_text = count_flops(objective, batch), count_flops(plain, batch)
    tower = sum(p.numel() for p in objective.tokenizer.text.tower.transformer.parameters() if p.ndim == 2)
    rows, tokens = 3 + 8, 6  # three different coarse captions, eight fine ones; five tokens and <eos>
    assert counted - without_text > 6 * tower * rows * 3
    assert counted - without_text < 6 * tower * rows * tokens + 10 * without_text


def test_counting_leaves_no_trace():
    torch.manual_seed(0)
    model, x = Products(), torch.randn(B, N, W)
    before = torch.random.get_rng_state()
    count_flops(model, x)
    assert all(p.grad is None for p in model.parameters())
    assert model.calls == 0
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("h100", "H100"),
        ("a100-40gb", "A100-40GB"),
    ],
)
def test_a_device_is_known_by_its_name(name: str, short: str):
    gpu = known_gpu(name)
    assert gpu is not None
    assert gpu.name == short


def test_an_unknown_device_is_not_taken_for_a_known_one():
    assert known_gpu("NVIDIA A1000 Laptop GPU") is None
    assert known_gpu("NVIDIA L400") is None


def test_the_table_is_dense_and_consistent():
    """16-bit products are never slower than fp32 ones, and every card is found by its own short name."""
    for gpu in GPUS:
        assert known_gpu(gpu.name) is gpu
        assert gpu.fp16 >= gpu.fp32
        assert gpu.bf16 is None or gpu.bf16 == gpu.fp16
    with pytest.raises(ConfigError, match="no bf16"):
        known_gpu("v100").peak("bf16")  # type: ignore[union-attr]


def test_a_cpu_is_measured_and_says_so():
    peak, source = peak_flops("cpu", "fp32")
    assert peak > 1e8
    assert "measured" in source
