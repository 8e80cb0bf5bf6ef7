"""PSNR and SSIM against torchmetrics; prefix lengths; the average over pictures."""

from __future__ import annotations

import pytest
import torch

from data_pipelines.samples import to_bytes, to_model
from seq_tokenizer.latents import prefix_lengths
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.evaluation.metrics.reconstruction import psnr, reconstruction, ssim
from seqtok_core.foundation.compat import prepare_torchvision
from tests.seqtok.evaluation.toy import SIZE, LosslessTokenizer


def noisy_pair(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator)
    strength = torch.linspace(5, 80, count)[:, None, None, None]
    noise = torch.randn(truth.shape, generator=generator) * strength
    return (truth + noise).round().clamp(0, 255).byte(), truth.byte()


def test_psnr_is_that_of_torchmetrics_picture_by_picture() -> None:
    prepare_torchvision()
    from torchmetrics.functional.image import peak_signal_noise_ratio

    pictures, truth = noisy_pair()
    reference = torch.stack(
        [peak_signal_noise_ratio(p.float(), t.float(), data_range=255.0) for p, t in zip(pictures, truth, strict=True)]
    )
    torch.testing.assert_close(psnr(pictures, truth), reference)


def test_the_reported_psnr_is_a_mean_of_decibels_not_of_errors() -> None:
    pictures, truth = noisy_pair()
    each = psnr(pictures, truth)
    assert each.max() - each.min() > 10
    assert reconstruction({4: pictures}, truth)["psnr"]["4"] == pytest.approx(float(each.mean()))


def test_ssim_is_that_of_torchmetrics_picture_by_picture() -> None:
    prepare_torchvision()
    from torchmetrics.functional.image import structural_similarity_index_measure

    pictures, truth = noisy_pair()
    reference = structural_similarity_index_measure(
        pictures[..., 3:].float(), truth[..., 3:].float(), reduction="none", data_range=255.0
    )
    torch.testing.assert_close(ssim(pictures[..., 3:], truth[..., 3:]), reference, rtol=1e-4, atol=1e-5)


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    pictures, truth = noisy_pair()
    torch.testing.assert_close(ssim(truth, truth), torch.ones(len(truth)))
    assert (ssim(pictures, truth).diff() < 0).all()


def test_equal_pictures_have_a_finite_psnr() -> None:
    _, truth = noisy_pair()
    assert psnr(truth, truth).tolist() == [100.0] * len(truth)


@pytest.mark.parametrize(("length", "expected"), [(1, (1,)), (16, (1, 2, 4, 8, 16)), (20, (1, 2, 4, 8, 16, 20))])
def test_prefix_lengths_double_and_end_with_the_whole(length: int, expected: tuple[int, ...]) -> None:
    assert prefix_lengths(length) == expected


def test_bytes_are_clipped_and_rounded() -> None:
    assert to_bytes(torch.tensor([-7.0, -1.0, 0.001, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_model(every)), every)
    assert every[3] == 3, "what is given is not changed"


def test_batching_changes_nothing() -> None:
    _, truth = noisy_pair()
    tokenizer = LosslessTokenizer()
    latents = encode_all(tokenizer, truth, batch=4)
    assert torch.equal(decode_all(tokenizer, latents, 4, batch=5), truth)
    assert not torch.equal(decode_all(tokenizer, latents, 3), truth)
