"""How near a picture comes to its original, against the number of tokens that it is decoded from.

Both sides are 8-bit pictures: what was decoded is clipped and rounded first, as a viewer would see it. PSNR
and SSIM are computed per picture and then averaged over pictures (not from the mean error of the whole
set).
Shapes: B pictures, P prefix lengths.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seqtok_core.foundation.errors import ConfigError

_WINDOW, _WINDOW_STD = 11, 1.5  # pixels, of SSIM
_SSIM_BATCH = 256  # pictures
_IDENTICAL = 100.0  # dB, what two equal 8-bit pictures are given instead of infinity


def psnr(pictures: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture: two (B, 3, H, W) uint8 -> (B,) dB, at most 100."""
    error = (pictures.float() - originals.float()).square().mean((1, 2, 3))
    return (10 * torch.log10(255.0**2 / error.clamp(min=1e-12))).clamp(max=_IDENTICAL)


def ssim(pictures: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity of each picture: two (B, 3, H, W) uint8 of more than 5 pixels a side -> (B,).

    Wang et al. 2004 with a Gaussian window of 11 pixels and std 1.5, mirrored at the edges, mean over pixels and
    channels: torchmetrics' definition. As two matrix products per local mean; its convolution takes 10 times as long.
    """
    parts = zip(pictures.split(_SSIM_BATCH), originals.split(_SSIM_BATCH), strict=True)
    return torch.cat([_ssim(a.float(), b.float()) for a, b in parts])


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    rows, columns = _window(a.shape[-2]), _window(a.shape[-1]).T

    def local(x: Tensor) -> Tensor:
        return rows @ x @ columns

    mean_a, mean_b = local(a), local(b)
    var_a = (local(a * a) - mean_a**2).clamp(min=0.0)
    var_b = (local(b * b) - mean_b**2).clamp(min=0.0)
    shared = local(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar = (2 * mean_a * mean_b + c1) * (2 * shared + c2)
    return (similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean((1, 2, 3))


def _window(size: int) -> Tensor:
    """(size, size): row i is the Gaussian window around position i; what lies outside is mirrored at the edge."""
    reach = _WINDOW // 2
    if size <= reach:
        raise ConfigError(f"SSIM needs pictures of more than {reach} pixels a side, these have {size}")
    step = torch.arange(-reach, reach + 1)
    tap = torch.exp(-(step**2) / (2 * _WINDOW_STD**2))
    position = (torch.arange(size)[:, None] + step).abs()  # (size, 11), mirrored at the first pixel
    position = torch.where(position < size, position, 2 * (size - 1) - position)  # and at the last
    return torch.zeros(size, size).scatter_add_(1, position, (tap / tap.sum()).expand(size, -1))


def reconstruction(decoded: Mapping[int, Tensor], images: Tensor) -> dict[str, dict[str, float]]:
    """k -> pictures decoded from k tokens, and the originals, all (B, 3, H, W) uint8
    -> {"psnr": {k: dB}, "ssim": {k: value}}."""
    return {
        "psnr": {str(k): float(psnr(pictures, images).mean()) for k, pictures in decoded.items()},
        "ssim": {str(k): float(ssim(pictures, images).mean()) for k, pictures in decoded.items()},
    }
