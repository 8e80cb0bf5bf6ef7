"""A data set, and tokenizers small enough to export it in a moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seq_tokenizer import SeqTokenizer, TokenizerConfig

ROOT = Path(__file__).parents[3]
LENGTH, DIM, EMBED = 4, 3, 8
COUNTS, PER_SHARD = {"test": 10, "train": 30}, 8


def scenes(folder: Path, size: int = 16) -> Path:
    sources = {
        "train": ScenesSource("train", COUNTS["train"], size),
        "test": ScenesSource("test", COUNTS["test"], size),
    }
    prepare(sources, folder, PrepareConfig(name="scenes", size=size, samples_per_shard=PER_SHARD))
    train_vocabulary(folder, 400)
    return folder


def saved_tokenizer(
    folder: Path, data: Path, seed: int = 0, text: bool = True, context: int = 48, **changes: Any
) -> Path:
    """With statistics measured on noise: latents of pictures lie within a few deviations of them."""
    torch.manual_seed(seed)
    words = CaptionTokenizer.load(data / "captions.model").vocab_size
    tower = {"vocab_size": words, "context": context, "width": 16, "heads": 2, "layers": 1, "embed_dim": EMBED}
    shape = {"image_size": 16, "patch_size": 8, "num_latents": LENGTH, "latent_dim": DIM, "width": 32, "heads": 2}
    values = {**shape, "encoder_layers": 1, "decoder_layers": 1, "text": tower if text else None, **changes}
    tokenizer = SeqTokenizer(TokenizerConfig.parse(values)).eval()
    tokenizer.save_pretrained(folder, data / "captions.model")
    return folder


def run_export(*words: object, faults: str = "", ranks: int = 0) -> subprocess.CompletedProcess[str]:
    """`seqtok tokenizer export` as a process of its own, or under torchrun."""
    launcher = [sys.executable, "-m"]
    if ranks:
        launcher += ["torch.distributed.run", "--nproc-per-node", str(ranks), "--rdzv-backend", "c10d"]
        launcher += ["--rdzv-endpoint", "localhost:0", "-m"]
    return subprocess.run(
        [*launcher, "seqtok", "tokenizer", "export", *(str(word) for word in words)],
        cwd=ROOT,
        env={**os.environ, "SEQTOK_FAULTS": faults, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )


def content(path: Path) -> dict[str, bytes]:
    """Every file of an export but the lock, by name; a single file by its own name."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files if file.name != "run.lock"}
