"""What is gathered over processes: two make the losses and gradients of one."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.seq_tokenizer.two_processes import loss_and_gradients, means_of_two

SIZES = {"width": 16, "layers": 1, "heads": 2, "weight": 1.0}
JOBS = [
    {"contrast": {"weight": 1.0}},
    {"pixels": None, "contrast": {"weight": 1.0, "loss": "sigmoid"}, "write": {"weight": 1.0}, "match": SIZES},
]


def test_two_processes_make_the_losses_and_gradients_of_one(tmp_path: Path):
    for job, two in zip(JOBS, means_of_two(JOBS, tmp_path), strict=True):
        one = loss_and_gradients(job)
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
