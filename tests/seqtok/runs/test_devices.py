"""Nothing is made on the CPU by habit: with the model elsewhere, everything that is computed is there as well.

"Elsewhere" is torch's meta device, which refuses to mix with CPU tensors as a GPU does, and needs none.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ar_model.sampling import SampleConfig
from ar_model.sequences.base import Captions, Roles
from ar_model.sequences.cache import ReadOnce
from ar_model.sequences.layout import caption_slots
from seq_tokenizer.orders.prefix import draw_prefix
from seqtok.runs.tokenizer import TokenizerHooks
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws
from seqtok_core.training.journal.metrics import Means
from seqtok_core.training.processes.distributed import World
from tests.ar_model import toy as ar_toy
from tests.seq_tokenizer import toy as tokenizer_toy

ELSEWHERE = torch.device("meta")


def numbers(rows: int) -> Tensor:
    return torch.zeros(rows, dtype=torch.int64, device=ELSEWHERE)


@pytest.mark.parametrize("encoder", ["titok", "qformer"])
@pytest.mark.parametrize("size", [16, 24])
def test_the_tokenizer(encoder: str, size: int):
    model = tokenizer_toy.toy_tokenizer(encoder).to(ELSEWHERE)
    latents = model.encode(torch.zeros(2, 3, size, size, device=ELSEWHERE))
    assert model.device == latents.device == ELSEWHERE
    assert model.decode(latents, draw_prefix(torch.zeros(2, device=ELSEWHERE), 6)).device == ELSEWHERE
    assert model.decode(latents[:, :2]).device == ELSEWHERE
    assert model.prefix_embeddings(latents).device == ELSEWHERE


def test_a_drawn_picture_and_its_loss():
    model = tokenizer_toy.toy_tokenizer(decoder={"kind": "flow", "guidance": 2.0}).to(ELSEWHERE)
    latents, pixels = torch.zeros(2, 6, 3, device=ELSEWHERE), torch.zeros(2, 3, 16, 16, device=ELSEWHERE)
    assert model.decode(latents, seed=1).device == model.decode(latents, numbers(2)).device == ELSEWHERE
    assert model.decoder.loss(latents, numbers(2), pixels, Draws(0, numbers(2), numbers(2))).device == ELSEWHERE


def test_the_draws():
    draws = Draws(0, numbers(3), numbers(3))
    for draw in (draws.uniform, draws.normal):
        assert draw("stream", (4,)).device == ELSEWHERE
    times = flow.logit_normal_times(torch.zeros(3, 2, device=ELSEWHERE))
    assert times.device == flow.to_velocity(times, times, times, "data").device == ELSEWHERE


def test_the_sequence_model_in_training():
    model = ar_toy.toy_generator().to(ELSEWHERE)
    z = torch.zeros(2, ar_toy.LENGTH, ar_toy.DIM, device=ELSEWHERE)
    z = model.spec.normalise(z)
    keep = torch.ones(2, dtype=torch.bool, device=ELSEWHERE)
    text = torch.zeros(2, 5, dtype=torch.int64, device=ELSEWHERE)
    roles, draws = Roles(keep, None, numbers(2)), Draws(0, numbers(2), numbers(2))
    slots = model.sequence.arrange(model.backbone, z, z, text, roles, draws)
    read = ReadOnce()
    h = model.backbone(slots.x, slots.positions, slots.mask, read)
    loss = model.head.loss(h[:, slots.latents], z, Draws(0, numbers(2), numbers(2)))
    assert slots.prompt[1].device == loss.device == ELSEWHERE
    captions = caption_slots(text, numbers(2), 0, torch.ones(2, slots.x.shape[1], device=ELSEWHERE) > 0, z.shape[1])
    written = Captions(model.backbone.writing.embed_text(captions.ids), captions).states(model.backbone, read)
    assert {each.device for each in (written, *vars(captions).values())} == {ELSEWHERE}


def test_sampling(monkeypatch: pytest.MonkeyPatch):
    """The solver's grid is read as plain numbers, which meta has none of."""
    model = ar_toy.toy_generator().to(ELSEWHERE)
    real = flow.time_grid
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: [0.0] * self.numel())
    assert real(2, ELSEWHERE).device == ELSEWHERE
    ids = torch.zeros(2, 5, dtype=torch.int64, device=ELSEWHERE)
    draws = Draws(0, numbers(2), numbers(2))
    for solver in flow.SOLVERS:
        config = SampleConfig().changed(guidance=2.0, flow={"steps": 2, "solver": solver})
        drawn = model.sequence.draw(model.backbone, model.head, ids, draws, config, ar_toy.LENGTH, 3)
        latents = torch.stack(list(drawn), 1)
        assert latents.device == ELSEWHERE


def test_means_take_values_from_any_device():
    means = Means(World(0, 1, 0, ELSEWHERE))
    means.add({"loss": torch.zeros((), device=ELSEWHERE)})
    means.add({"grad_norm": torch.tensor(1.0)})  # DeepSpeed's norm, which ZeRO 0 and offloading keep on the CPU
    assert torch.stack(list(means._sums.values())).device == ELSEWHERE


def test_sample_pictures_are_computed_where_the_model_is(monkeypatch: pytest.MonkeyPatch):
    """Pictures are read on the CPU; the averaged model that a run hands out is on its device."""
    seen: list[torch.device] = []

    def forward(self: nn.Module, pixels: Tensor, *rest: object) -> Tensor:
        seen.append(pixels.device)
        raise InterruptedError

    hooks = TokenizerHooks.__new__(TokenizerHooks)
    hooks._run = SimpleNamespace(frozen=None)
    images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    monkeypatch.setattr(hooks, "_read", lambda count: images)
    monkeypatch.setattr(hooks, "_sample", lambda count: iter([SimpleNamespace(images=images)]))
    model = tokenizer_toy.toy_tokenizer().to(ELSEWHERE)
    monkeypatch.setattr(type(model.encoder), "forward", forward)
    monkeypatch.setattr("seqtok.runs.tokenizer._tokenizer_of", lambda module: module)
    for work in (lambda: hooks.on_sample(model, None, 0), lambda: hooks.on_finish(model, None)):
        with pytest.raises(InterruptedError):
            work()
    assert seen == [ELSEWHERE, ELSEWHERE]
