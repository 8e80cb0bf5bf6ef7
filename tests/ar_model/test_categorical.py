"""Codes as next tokens: latents are entries, found again and drawn by their probability."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ar_model import GeneratorObjective, GeneratorObjectiveConfig, SampleConfig, SeqGenerator
from ar_model.heads.categorical import CategoricalHead, CategoricalHeadConfig, CategoricalSampleConfig
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import DIM, LENGTH, latent_spec, random_latents, toy_batch, toy_generator

WIDTH, ENTRIES = 16, 9


def head_of(parts: int) -> CategoricalHead:
    torch.manual_seed(0)
    head = CategoricalHead(CategoricalHeadConfig(width=24, depth=2), WIDTH, latent_spec(codebook=(ENTRIES, parts)))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.3)
    sizes = 4.0 ** -torch.arange(parts)  # as residual quantisers have them: each level finer than the one before
    head.take_codebook(torch.randn(parts, ENTRIES, DIM) * sizes[:, None, None])
    return head


def latents(head: CategoricalHead, codes: Tensor) -> Tensor:
    """codes (B, K, Q) -> standardised (B, K, D)."""
    raw = sum(head.table[part][codes[..., part]] for part in range(head.parts))
    return latent_spec().normalise(raw)


@pytest.mark.parametrize("parts", [1, 2])
def test_codes_of_latents_are_found_again(parts: int) -> None:
    head = head_of(parts)
    codes = torch.randint(ENTRIES, (5, LENGTH, parts), generator=torch.Generator().manual_seed(1))
    found = head.codes(latents(head, codes).half().float())  # as they lie in shards
    if parts == 1:
        assert torch.equal(found, codes)
    chosen = latents(head, head.codes(random_latents(5)))  # what residual quantisation makes is found as it was made
    torch.testing.assert_close(latents(head, head.codes(chosen)), chosen)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_loss_is_the_cross_entropy_of_each_code_after_those_before_it(parts: int) -> None:
    head, h = head_of(parts), torch.randn(4, LENGTH, WIDTH)
    z = latents(head, head.codes(random_latents(4)))
    codes, each = head.codes(z), []
    for part in range(parts):
        so_far = sum(head.table[i][codes[..., i]] for i in range(part)) if part else None
        logits = head.logits(h, part, so_far)
        each.append(F.cross_entropy(logits.flatten(0, 1), codes[..., part].flatten(), reduction="none"))
    expected = torch.stack(each).mean(0).view(4, LENGTH)
    torch.testing.assert_close(head.loss(h, z, Draws.alike(0, 4)), expected)


def test_entries_are_drawn_at_their_rates_and_nothing_else_is() -> None:
    head, rows = head_of(1), 4000
    h, free = torch.randn(2, 1, WIDTH).expand(-1, rows, -1)
    index = torch.arange(rows)
    draws = Draws(0, torch.zeros_like(index), index)
    for scale, temperature, top_p in ((1.0, 1.0, 1.0), (2.0, 0.7, 1.0), (1.0, 1.0, 0.5)):
        sample = head.sampler(temperature, CategoricalSampleConfig(top_p=top_p))
        with torch.no_grad():
            z = sample(h, None if scale == 1 else free, scale, draws, 2)
            log_p, log_free = (head.network(state[:1]).log_softmax(-1)[0] for state in (h, free))
        distance, code = torch.cdist(z * head.std[2] + head.mean[2], head.table[0]).min(1)
        assert float(distance.max()) < 1e-2
        p = ((log_free + scale * (log_p - log_free)) / temperature).softmax(-1)
        if scale == 1:
            p = (log_p / temperature).softmax(-1)
        if top_p < 1:
            ordered = p.sort(descending=True)
            kept = ordered.indices[: int((ordered.values.cumsum(0) < top_p).sum()) + 1]
            p = torch.zeros_like(p).index_copy(0, kept, p[kept] / p[kept].sum())
        share = torch.bincount(code, minlength=ENTRIES) / rows
        torch.testing.assert_close(share, p, rtol=0, atol=0.03)
    likeliest = head.sampler(0.0, CategoricalSampleConfig())(h[:3], None, 1.0, Draws.alike(0, 3), 2)
    expected = (head.table[0][head.network(h[0]).argmax()] - head.mean[2]) / head.std[2]
    torch.testing.assert_close(likeliest, expected.expand(3, -1))


@pytest.mark.parametrize("sequence", [{"kind": "next_token"}, {"kind": "scales", "groups": [1, 2, 3]}])
def test_pictures_are_made_of_entries_in_every_sequence(sequence: dict[str, object], tmp_path: Path) -> None:
    head = {"kind": "categorical", "width": 24, "depth": 2}
    model = toy_generator(codebook=(ENTRIES, 2), head=head, sequence=sequence)
    drawn = model.sample(["a red circle", "one shape"], SampleConfig(guidance=2.0))
    sums = (model.head.table[0][:, None] + model.head.table[1]).flatten(0, 1)
    assert float(torch.cdist(drawn.flatten(0, 1), sums).min(1).values.max()) < 1e-2
    model.save_pretrained(tmp_path)
    again = SeqGenerator.from_pretrained(tmp_path)
    assert torch.equal(again.sample(["a red circle"], seed=1), model.sample(["a red circle"], seed=1))
    assert torch.equal(model.bfloat16().head.table, again.head.table)


def test_it_learns_which_entry_follows() -> None:
    """A prompt names the entry of all latents."""
    model = toy_generator(codebook=(ENTRIES, 1), head={"kind": "categorical", "width": 32, "depth": 2})
    named = torch.tensor([3, 7]).repeat(16)
    z = model.head.table[0][named][:, None].expand(-1, LENGTH, -1)
    batch = toy_batch([["a red circle"] if i == 3 else ["a blue square"] for i in named], z)
    objective = GeneratorObjective(model, GeneratorObjectiveConfig(condition_dropout=0.0), model.spec)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=4e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective(batch)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    drawn = model.sample(["a red circle", "a blue square"], guidance=1.0)
    expected = model.head.table[0][torch.tensor([3, 7])][:, None].expand(-1, LENGTH, -1)
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-3)


def test_what_has_no_codebook_is_refused() -> None:
    with pytest.raises(ConfigError, match="a tokenizer without a codebook; take flow"):
        CategoricalHead(CategoricalHeadConfig(), WIDTH, latent_spec())
    with pytest.raises(MismatchError, match=r"these latents need \(1, 9, 3\)"):
        head_of(1).take_codebook(torch.zeros(2, ENTRIES, DIM))
