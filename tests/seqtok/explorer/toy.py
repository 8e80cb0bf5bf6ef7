"""A run as a demo leaves it, with small untrained models that were made on the spot, and a client of its explorer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from httpx2 import Response
from PIL import Image
from torch import nn

from ar_model import GeneratorConfig, SeqGenerator
from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.prepare.run import prepare
from data_pipelines.prepare.settings import PrepareConfig
from data_pipelines.reading.vocabulary import train_vocabulary
from data_pipelines.sources.drawn import ScenesSource
from seq_tokenizer import SeqTokenizer, TokenizerConfig
from seqtok.explorer.app import build_app
from seqtok.explorer.found import find_parts
from seqtok.explorer.studio import Studio

SIZE, LENGTH, DIM = 16, 6, 3
REPORT = "<!doctype html><title>seqtok demo</title><p>the judge's numbers"


def make_run(folder: Path) -> Path:
    """data/, tokenizer/model, generator/model and report/report.html."""
    sources = {"train": ScenesSource("train", 12, SIZE), "test": ScenesSource("test", 8, SIZE)}
    prepare(sources, folder / "data", PrepareConfig(name="scenes", size=SIZE, form="png"))
    train_vocabulary(folder / "data", 320)
    words = CaptionTokenizer.load(folder / "data" / "captions.model")
    torch.manual_seed(0)
    text = {"vocab_size": words.vocab_size, "width": 16, "heads": 2, "layers": 1, "embed_dim": 8}
    shape = {"image_size": SIZE, "patch_size": 4, "num_latents": LENGTH, "latent_dim": DIM, "width": 32, "heads": 2}
    writer = {"level_starts": (1, 2), "width": 16, "layers": 1, "heads": 2}
    parts = {"encoder_layers": 2, "decoder_layers": 2, "text": text, "writer": writer}
    tokenizer = _awake(SeqTokenizer(TokenizerConfig.parse({**shape, **parts})))
    tokenizer.save_pretrained(folder / "tokenizer" / "model", folder / "data" / "captions.model")
    sequence = {"caption_levels": 2, "caption_prefixes": 0.5, "prefix_dropout": 0.3}
    head = {"width": 32, "depth": 1}
    config = GeneratorConfig.parse({"width": 32, "depth": 1, "heads": 2, "head": head, "sequence": sequence})
    _awake(SeqGenerator(config, tokenizer.spec, words)).save_pretrained(folder / "generator" / "model")
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text(REPORT, encoding="utf-8")
    return folder


def _awake(model: Any) -> Any:
    """Weights that begin at zero would hide what a law is about."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return model


def client_of(run: Path, **settings: Any) -> TestClient:
    parts = find_parts(str(run))
    return TestClient(build_app(Studio.load(parts), parts.report, **settings), base_url="http://127.0.0.1:7860")


def picture_bytes(seed: int = 0, size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def told(answer: Response) -> list[dict[str, Any]]:
    """The lines of a drawing."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def refused(answer: Response, status: int) -> str:
    """The one sentence of a refusal."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert list(answer.json()) == ["error"]
    assert error
    assert "\n" not in error
    assert "Traceback" not in error
    return error
