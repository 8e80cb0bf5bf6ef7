"""Contrast: equal captions are positives; chunks and several processes make the loss and gradients of the whole."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from seq_tokenizer import TokenizerObjective, TokenizerTrainingConfig
from seq_tokenizer.losses.contrast import ContrastConfig
from seq_tokenizer.text.contrast import CaptionLoss, Pairs
from seqtok_core.foundation.compat import prepare_torchvision
from tests.seq_tokenizer.toy import toy_batch, toy_tokenizer

KINDS = ("softmax", "sigmoid")


def unit(count: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return F.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1)


def pairs(count: int, ids: list[int] | None = None) -> Pairs:
    return Pairs(unit(count, 0), unit(count, 1), torch.arange(count) if ids is None else torch.tensor(ids))


def test_with_different_captions_the_loss_is_open_clips():
    prepare_torchvision()
    from open_clip.loss import ClipLoss, SigLipLoss

    some, scale = pairs(6), torch.tensor(2.0)
    torch.testing.assert_close(CaptionLoss(100.0)(some, scale), ClipLoss()(some.images, some.texts, scale.exp()))
    sigmoid = CaptionLoss(100.0, "sigmoid")
    expected = SigLipLoss()(some.images, some.texts, scale.exp(), sigmoid.logit_bias)
    torch.testing.assert_close(sigmoid(some, scale), expected)


def test_equal_captions_are_positives_of_each_other():
    """Target of a row: uniform over all images with that caption; written out here from the definition."""
    some = pairs(4, [5, 5, 6, 7])
    some.texts[1] = some.texts[0]
    logits = 3.0 * some.images @ some.texts.T
    target = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    scale = torch.tensor(3.0).log()
    torch.testing.assert_close(CaptionLoss(100.0)(some, scale), expected)
    expected = F.binary_cross_entropy_with_logits(logits - 10, (target > 0).float(), reduction="sum") / 4
    torch.testing.assert_close(CaptionLoss(100.0, "sigmoid")(some, scale), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_once", [1, 10, 2**22])
def test_images_without_a_caption_do_not_count(kind: str, at_once: int):
    loss, scale = CaptionLoss(100.0, kind, at_once), torch.tensor(1.0)
    some, few = pairs(5, [1, 2, 3, -1, -1]), pairs(5, [1, 2, 3, 0, 0])
    torch.testing.assert_close(loss(some, scale), loss(Pairs(*(x[:3] for x in few)), scale))
    assert loss(pairs(5, [-1] * 5), scale) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_make_the_whole(kind: str):
    """Loss and gradients in float64: 7 rows in chunks of 1, 2 and 3 against all at once."""
    found = []
    for at_once in (2**22, 7, 14, 27):
        loss = CaptionLoss(100.0, kind, at_once).double()
        leaves = [unit(7, 0, torch.float64), unit(7, 1, torch.float64), torch.tensor(2.0, dtype=torch.float64)]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        value = loss(Pairs(*leaves[:2], torch.tensor([4, 4, 5, -1, 5, 4, 6])), leaves[2])
        value.backward()
        found.append([value.detach(), *(leaf.grad for leaf in leaves), *(p.grad for p in loss.parameters())])
    for parts in found[1:]:
        for part, whole in zip(parts, found[0], strict=True):
            torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_in_chunks_no_tensor_of_all_logits_exists(kind: str):
    from seqtok_core.training.costs.memory import footprint

    class Alone(torch.nn.Module):
        def __init__(self, at_once: int) -> None:
            super().__init__()
            self.loss, self.scale = CaptionLoss(100.0, kind, at_once), torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, some: Pairs) -> dict[str, torch.Tensor]:
            return {"loss": self.loss(some, self.scale)}

    some = Pairs(*(x.requires_grad_() for x in pairs(256)[:2]), torch.arange(256))
    whole, chunked = (footprint(Alone(at_once), some).bytes for at_once in (2**22, 2**13))
    assert chunked < 4 * 256 * 256 < whole


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_beyond_its_limit_returns(kind: str):
    """Below the limit nothing differs from the plain exponential; beyond it value and gradient are the limit's."""
    loss, some = CaptionLoss(10.0, kind), pairs(6)
    if loss.logit_bias is not None:
        torch.nn.init.zeros_(loss.logit_bias)

    def at(value: float) -> tuple[torch.Tensor, torch.Tensor]:
        scale = torch.tensor(value, requires_grad=True)
        result = loss(some, scale) + loss.pull(scale)
        result.backward()
        return result.detach(), scale.grad

    limit, beyond = at(math.log(10.0)), at(math.log(10.0) + 0.5)
    torch.testing.assert_close(beyond[0], limit[0])
    torch.testing.assert_close(beyond[1], limit[1] + 0.5)  # and a pull by how far it is
    assert limit[1] != 0
    scale = torch.tensor(3.0, requires_grad=True)
    for _ in range(60):  # random pairs want a low temperature
        (gradient,) = torch.autograd.grad(loss(some, scale) + loss.pull(scale), scale)
        scale = (scale - 0.2 * gradient).detach().requires_grad_()
    assert scale < math.log(10.0)


@pytest.mark.parametrize("kind", KINDS)
def test_its_gradient_reaches_what_speaks_of_text_and_the_encoder_alone(kind: str):
    config = TokenizerTrainingConfig(pixels=None, contrast=ContrastConfig(loss=kind))
    objective = TokenizerObjective(toy_tokenizer(), config)
    objective(toy_batch())["loss"].backward()
    reached = {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[0] for name in reached} <= {"tokenizer", "terms"}
    parts = {name.split(".")[1] for name in reached if name.startswith("tokenizer")}
    assert parts == {"encoder", "bottleneck", "text", "readout", "logit_scale"}
    assert ("terms.contrast.caption_loss.logit_bias" in reached) == (kind == "sigmoid")
