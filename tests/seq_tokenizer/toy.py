"""A tokenizer small enough for laws, and batches to feed it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from data_pipelines.samples import ImageTextBatch
from seq_tokenizer import SeqTokenizer, TextConfig, TokenizerConfig

CONFIG = {
    "image_size": 16,
    "patch_size": 4,
    "num_latents": 6,
    "latent_dim": 3,
    "width": 32,
    "heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
}


ENCODERS: dict[str, dict[str, Any]] = {
    "titok": {"kind": "titok"},
    "qformer": {"kind": "qformer"},
    "qformer with a stem": {"kind": "qformer", "stem_channels": 4},
    "qformer with registers": {"kind": "qformer", "registers": 2},
}


def toy_tokenizer(
    encoder: str | dict[str, Any] = "qformer", text: bool = True, seed: int = 0, **values: Any
) -> SeqTokenizer:
    torch.manual_seed(seed)
    tower = TextConfig(vocab_size=40, context=8, width=16, layers=1, heads=2, embed_dim=8) if text else None
    part = ENCODERS[encoder] if isinstance(encoder, str) else encoder
    model = SeqTokenizer(TokenizerConfig.parse({**CONFIG, "encoder": part, "text": tower, **values}))
    for parameter in model.parameters():  # zero-initialised outputs would hide what a law is about
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def toy_pixels(count: int = 3, size: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def toy_latents(count: int = 3, seed: int = 2) -> torch.Tensor:
    return torch.randn(
        count, CONFIG["num_latents"], CONFIG["latent_dim"], generator=torch.Generator().manual_seed(seed)
    )


def toy_batch(count: int = 8, levels: int = 2, first: int = 0) -> ImageTextBatch:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (64, 3, 16, 16), generator=generator, dtype=torch.uint8)
    text = torch.randint(6, 40, (64, levels, 5), generator=generator)
    text[:, 0, 2:] = 0
    identity = torch.arange(64 * levels).reshape(64, levels)
    identity[:, 0] = torch.arange(64) % 3  # coarse captions repeat
    text[:, 0] = text[identity[:, 0], 0]
    rows = slice(first, first + count)
    return ImageTextBatch(
        keys=[str(i) for i in range(first, first + count)],
        index=torch.arange(64)[rows],
        epoch=torch.zeros(count, dtype=torch.int64),
        text_ids=text[rows],
        level_mask=torch.ones(count, levels, dtype=torch.bool),
        caption_ids=identity[rows],
        images=images[rows],
    )


def rows_of(batch: ImageTextBatch, rows: Any) -> ImageTextBatch:
    """Some samples of a batch."""
    taken = {f.name: getattr(batch, f.name)[rows] for f in fields(batch) if torch.is_tensor(getattr(batch, f.name))}
    return replace(batch, keys=[str(int(i)) for i in taken["index"]], **taken)


def every_second(batch: ImageTextBatch, first: int) -> ImageTextBatch:
    """What one of two ranks reads."""
    return rows_of(batch, slice(first, None, 2))
