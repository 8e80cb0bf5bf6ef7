"""A tiny sequence model, its words and its latents, for the tests of ar_model."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ar_model import FlowHeadConfig, GeneratorConfig, GeneratorObjective, GeneratorObjectiveConfig, SeqGenerator
from ar_model.heads.categorical import CategoricalHead
from data_pipelines.captions.tokenizer import EOS, CaptionTokenizer
from data_pipelines.samples import LatentTextBatch
from seq_tokenizer.latents import LatentSpec

LENGTH, DIM = 6, 3
CAPTIONS = ["one shape", "a red circle", "a blue square above a red circle", "a blue square"]


@cache
def words() -> CaptionTokenizer:
    return CaptionTokenizer.train(CAPTIONS, None, 320)


def latent_spec(
    tokenizer_id: str = "aaaa", length: int = LENGTH, codebook: tuple[int, int] | None = None
) -> LatentSpec:
    """`codebook`: entries and codes per token."""
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(length, DIM, generator=generator)
    std = 0.5 + torch.rand(length, DIM, generator=generator)
    entries, parts = codebook or (None, 1)
    return LatentSpec(length, DIM, mean, std, tokenizer_id, codebook_size=entries, codes_per_token=parts)


def generator_config(**changes: object) -> GeneratorConfig:
    values = {"width": 32, "depth": 2, "heads": 2, "max_text_tokens": 40}
    head = FlowHeadConfig(width=32, depth=2, repeats=2)
    return GeneratorConfig.parse({**values, "head": head.model_dump(), **changes})


def toy_generator(
    seed: int = 0, length: int = LENGTH, codebook: tuple[int, int] | None = None, **changes: object
) -> SeqGenerator:
    """Every weight random: with the real initialisation, whose outputs are zero, every law would hold."""
    torch.manual_seed(seed)
    model = SeqGenerator(generator_config(**changes), latent_spec(length=length, codebook=codebook), words())
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    if isinstance(model.head, CategoricalHead):
        model.head.take_codebook(torch.randn(model.head.table.shape))
    return model.eval()


def toy_batch(captions: list[list[str]], latents: Tensor, first: int = 0, max_tokens: int = 40) -> LatentTextBatch:
    """captions B x L, latents (B, K, D); sample i of the data set is `first` + i."""
    text_ids, level_mask, caption_ids = words().encode_batch(captions, max_tokens=max_tokens)
    index = torch.arange(first, first + len(captions))
    return LatentTextBatch(
        keys=[str(int(i)) for i in index],
        index=index,
        epoch=torch.zeros_like(index),
        text_ids=text_ids,
        level_mask=level_mask,
        caption_ids=caption_ids,
        latents=latents,
    )


def random_latents(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, LENGTH, DIM, generator=torch.Generator().manual_seed(seed))


def learns_a_coin_for_each_image(model: SeqGenerator, config: GeneratorObjectiveConfig, epochs: int) -> None:
    """The caption says a side, a coin that no caption knows is thrown once for all latents of an image."""
    torch.manual_seed(0)
    side = torch.tensor([1.0 if i % 2 else -1.0 for i in range(128)])
    coin = torch.randn(128, 1, 1).sign()
    z = 1.5 * side[:, None, None] + coin.expand(-1, LENGTH, DIM) + 0.1 * random_latents(128)
    objective, spec = GeneratorObjective(model, config, latent_spec()), model.spec
    batch = toy_batch([[CAPTIONS[1]] if s > 0 else [CAPTIONS[3]] for s in side], spec.denormalise(z))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=4e-3)
    for epoch in range(epochs):
        batch = LatentTextBatch(**{**vars(batch), "epoch": torch.full_like(batch.index, epoch)})
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    drawn = model.sample([CAPTIONS[1]] * 40 + [CAPTIONS[3]] * 40, guidance=1.0, flow={"steps": 20})
    drawn = spec.normalise(drawn)
    left = drawn.mean((1, 2)) - torch.tensor([1.5] * 40 + [-1.5] * 40)
    assert float((left.abs() - 1).abs().mean()) < 0.35
    assert 0.2 < float((left > 0).float().mean()) < 0.8
    assert float(drawn.std(dim=(1, 2)).mean()) < 0.5, "all latents of an image agree on the coin"


@torch.no_grad()
def scored_as_written(model: SeqGenerator, latents: Tensor, captions: list[str]) -> None:
    """A score is the sum of what the writer, told the caption word by word, gives each of its words; level 1."""
    z, scores = model.spec.normalise(latents), model.score_captions(latents, captions)
    for row in range(len(z)):
        for column, caption in enumerate(captions):
            fresh, total = model.sequence.writer(model.backbone, z[row : row + 1], 1, LENGTH, 20), 0.0
            logits = fresh.first
            for word in [*words().encode(caption), EOS]:
                total += float(logits.log_softmax(-1)[0, word])
                logits = fresh.next(torch.zeros(1, dtype=torch.int64), torch.tensor([word]))
            assert abs(float(scores[row, column]) - total) < 2e-3
