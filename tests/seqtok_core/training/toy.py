"""A small objective, loader and program for the tests of the training service.

The objective has all that makes distributed training hard: two captions' worth of layers, a loss gathered
over processes, a parameter used outside `forward`, matrices that Muon must not touch, gains without decay, a
buffer. As a program: `python training_toy.py '[{"folder": ..., "zero_stage": 1}]'`, alone or under torchrun.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_pipelines.reading.order import EpochOrder, StepPlan

WIDTH, LENGTH, WORDS = 16, 6, 24
DEFAULTS = {"images": 96, "batch": 8, "log_every": 1, "lr": 3e-3, "weight_decay": 0.1, "warmup_images": 16}
DEFAULTS |= {"precision": "fp32"}  # most laws are about bits and digits
DEFAULTS |= {"background_save": False}  # so that a test knows what is on the disk at which step
DEFAULTS |= {"threads": 1}  # sums of two threads are other sums


@dataclass(frozen=True)
class ToyBatch:
    ids: Tensor  # (B, LENGTH) int64
    keys: list[str]

    def to(self, device: torch.device | str) -> ToyBatch:
        return ToyBatch(self.ids.to(device), self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class ToyLoader:
    """Sample i of step t is a pure function of (t, i); process r takes every world-th sample."""

    def __init__(self, batch: int, micro: int, rank: int, world: int) -> None:
        self.global_batch, self.micro, self.rank, self.world = batch, micro, rank, world

    def iterate(self, start_step: int) -> Iterator[ToyBatch]:
        step = start_step
        while True:
            generator = torch.Generator().manual_seed(step)
            ids = torch.randint(WORDS, (self.global_batch, LENGTH), generator=generator)
            mine = range(self.rank, self.global_batch, self.world)
            for begin in range(0, len(mine), self.micro):
                chosen = list(mine[begin : begin + self.micro])
                yield ToyBatch(ids[chosen], [f"{step}-{i}" for i in chosen])
            step += 1


class EpochLoader(ToyLoader):
    """Epochs of 32 samples in the real order of data; every key is written to `seen`, one file per process."""

    def __init__(self, batch: int, micro: int, rank: int, world: int, seen: Path) -> None:
        super().__init__(batch, micro, rank, world)
        self.plan, self.order = StepPlan(batch, micro, rank, world), EpochOrder([12, 20], seed=1, window=1)
        self.seen = seen / f"seen_{rank}_of_{world}.txt"

    def iterate(self, start_step: int) -> Iterator[ToyBatch]:
        for epoch, indices in self.plan.micro_batches(self.order, start_step):
            rows = [torch.randint(WORDS, (LENGTH,), generator=torch.Generator().manual_seed(int(i))) for i in indices]
            keys = [f"{epoch}-{i}" for i in indices]
            with open(self.seen, "a") as stream:
                stream.writelines(key + "\n" for key in keys)
            yield ToyBatch(torch.stack(rows), keys)


class StoppedLoader:
    """Another loader whose process gets a SIGTERM in the step that completes `stop_after` of them."""

    def __init__(self, inner: ToyLoader, stop_after: int) -> None:
        self.inner, self.stop_after, self.global_batch = inner, stop_after, inner.global_batch

    def iterate(self, start_step: int) -> Iterator[ToyBatch]:
        per_step = self.inner.global_batch // (self.inner.micro * self.inner.world)
        for number, batch in enumerate(self.inner.iterate(start_step), start=start_step * per_step):
            if number == self.stop_after * per_step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


class Block(nn.Module):
    def __init__(self, growth: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, growth * WIDTH), nn.GELU(), nn.Linear(growth * WIDTH, WIDTH)
        )

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, 2, WIDTH // 2)).permute(2, 0, 3, 1, 4)
        h = h + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h + self.mlp(h)


class Encoder(nn.Module):
    """Used through `encode`, never called: its own parameter must still be found at ZeRO 3."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.1)
        self.blocks = nn.ModuleList([Block(4), Block(3)])  # unlike, so that half the values ends inside a matrix
        self.register_buffer("table", torch.linspace(0, 1, WIDTH), persistent=False)

    def encode(self, ids: Tensor) -> Tensor:
        h = self.words(ids) + self.places + self.table
        for block in self.blocks:
            h = block(h)
        return h


class ToyObjective(nn.Module):
    def __init__(self, pairs: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.with_pairs = pairs
        self.encoder = Encoder()
        self.head = nn.Linear(WIDTH, WORDS)
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)

    def checkpointed_blocks(self) -> list[nn.Module]:
        return list(self.encoder.blocks)

    def muon_excluded(self) -> set[str]:
        return {"encoder.words.weight", "encoder.places", "head.weight"}

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        h = self.encoder.encode(batch.ids)
        words = nn.functional.cross_entropy(self.head(h).flatten(0, 1), batch.ids.roll(1, 1).flatten())
        first, last = (nn.functional.normalize(self.frozen(h[:, i]), dim=-1) for i in (0, -1))
        everyone = _gather(last)
        rows = self.temperature.exp() * 4 * first @ everyone.T
        offset = (dist.get_rank() if dist.is_initialized() else 0) * len(first)
        pairs = nn.functional.cross_entropy(rows, torch.arange(len(first), device=rows.device) + offset)
        return {"loss": words + pairs * int(self.with_pairs), "words": words}


def _gather(x: Tensor) -> Tensor:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    return torch.cat(torch.distributed.nn.functional.all_gather(x))


def save_weights(module: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), folder / "weights.pt")


class DyingLoader(ToyLoader):
    """The process of rank 1 loses a worker of its loader at the fifth batch."""

    def iterate(self, start_step: int) -> Iterator[ToyBatch]:
        from seqtok_core.foundation.errors import DataError

        for number, batch in enumerate(super().iterate(start_step)):
            if number == 4 and self.rank == 1:
                raise DataError("loader worker died (process 7)")
            yield batch


def train_toy(
    folder: Path,
    resume: str = "auto",
    overwrite: bool = False,
    pairs: bool = True,
    seen: str | None = None,
    stop_after: int | None = None,
    dying: bool = False,
    **settings: Any,
) -> Any:
    """`seen`: a folder; train on epochs and record the keys there. `stop_after`: a SIGTERM after that many steps."""
    from seqtok_core.training import TrainConfig, World, train

    config, world = TrainConfig(**{**DEFAULTS, **settings}), World.from_environment()
    place = (config.batch, config.micro_batch_of(world.size), world.rank, world.size)
    loader: Any = EpochLoader(*place, Path(seen)) if seen else ToyLoader(*place)
    if dying:
        loader = DyingLoader(*place)
    if stop_after is not None:
        loader = StoppedLoader(loader, stop_after)
    resolved = {"train": config.model_dump(mode="json")}
    return train(
        ToyObjective(pairs),
        loader,
        config,
        folder,
        resolved=resolved,
        resumable=frozenset(f"train.{key}" for key in TrainConfig.resumable_keys()),
        resume=resume,
        overwrite=overwrite,
        on_finish=save_weights,
    )


def under_torchrun(
    jobs: list[dict[str, Any]], processes: int = 2, timeout: float = 280, program: str = __file__
) -> Any:
    """Train one job after the other in one launch; each is {"folder": ..., "faults": ..., settings}."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", program, json.dumps(jobs)]
    root = str(Path(__file__).parents[3])  # programs import from `tests`, which is not installed
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


def in_child(
    folder: Path, faults: str = "", timeout: float = 120, kill_after: tuple[int, float] | None = None, **settings: Any
) -> int:
    """Train in a process of its own and return its exit status (negative: the signal that ended it).

    The fork server has the libraries loaded and no connection made: a child costs a second, not five.
    `kill_after`: kill -9 after so many steps of its own (log_every=1) and seconds.
    """
    before, _ = _progress(folder)
    child = start_child({"folder": str(folder), "faults": faults, **settings})
    if kill_after is not None:
        started: int | None = None
        while child.is_alive() and (started is None or _progress(folder)[1] < started + kill_after[0]):
            time.sleep(0.002)
            if started is None and _progress(folder)[0] != before:
                started = _progress(folder)[1]
        child.join(kill_after[1])
        child.kill()
    child.join(timeout)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


def start_child(
    job: dict[str, Any], env: dict[str, str] | None = None, said: Path | None = None
) -> multiprocessing.process.BaseProcess:
    """Begin to train in a process of its own, with `env` as further variables and its output in the file `said`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.seqtok_core.training.toy", "deepspeed", "torch.utils.tensorboard"])
    child = context.Process(target=_in_child, args=(job, env or {}, said))
    child.start()
    return child


def _in_child(job: dict[str, Any], env: dict[str, str], said: Path | None) -> None:
    os.environ.update(env)
    if said is not None:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
    main([job])


def _progress(folder: Path) -> tuple[int, int]:
    """metrics.jsonl: which file it is (a run that goes on makes it anew), and how many lines it has."""
    path = folder / "metrics.jsonl"
    return (path.stat().st_ino, path.read_bytes().count(b"\n")) if path.exists() else (0, 0)


def prepare_process(environment: dict[str, str], umask: int | None, file_bytes: int | None) -> None:
    """Make this process's surroundings strange."""
    os.environ.update(environment)
    time.tzset()
    if umask is not None:
        os.umask(umask)
    if file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does at its start; the fork server may not
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "model" / "weights.pt")


def lines(folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the fields of the clock."""
    from seqtok_core.training.journal.metrics import CLOCK_FIELDS

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in CLOCK_FIELDS} for row in rows]


def main(jobs: list[dict[str, Any]]) -> None:
    from seqtok_core.foundation.errors import Preempted, SeqtokError

    torch.set_num_threads(1)
    for job in jobs:
        os.environ["SEQTOK_FAULTS"] = job.pop("faults", "")
        prepare_process(job.pop("environment", {}), job.pop("umask", None), job.pop("file_bytes", None))
        try:
            train_toy(Path(job.pop("folder")), **job)
        except SeqtokError as error:
            if isinstance(error, Preempted) and "stop_after" in job:
                continue
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    from seqtok_core.training.processes.distributed import leave

    try:
        main(json.loads(sys.argv[-1]))  # deepspeed's launcher puts --local_rank=N before it
    except SystemExit as end:
        leave(end.code)
        raise
    leave(0)
