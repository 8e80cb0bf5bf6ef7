"""The same objective in one process and in two (gloo), each with every second sample: what a loss gathers is tested."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from tests.seq_tokenizer.losses.reached import WRITER
from tests.seq_tokenizer.toy import every_second, toy_batch, toy_tokenizer

COUNT, LEVELS = 12, 3


def loss_and_gradients(settings: dict[str, Any], rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """What `settings` make of a batch; the gradients of a rank are to be averaged."""
    parts = {"writer": WRITER} if settings.get("write") else {}
    objective = TokenizerObjective(toy_tokenizer(**parts), TokenizerTrainingConfig.parse(settings))
    batch = toy_batch(COUNT, LEVELS)
    values = objective(batch if world == 1 else every_second(batch, rank))
    values["loss"].backward()
    gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in {**values, **gradients}.items()}


def means_of_two(jobs: list[dict[str, Any]], folder: Path) -> list[dict[str, Tensor]]:
    """Losses and gradients of each job, averaged over two processes."""
    context = multiprocessing.get_context("forkserver")  # libraries are loaded once for both
    context.set_forkserver_preload(["tests.seq_tokenizer.two_processes"])
    children = [context.Process(target=_child, args=(jobs, rank, folder)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(200)
        assert child.exitcode == 0
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    return [{name: (one[name] + two[name]) / 2 for name in one} for one, two in zip(*ranks, strict=True)]


def _child(jobs: list[dict[str, Any]], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save([loss_and_gradients(job, rank, 2) for job in jobs], folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
