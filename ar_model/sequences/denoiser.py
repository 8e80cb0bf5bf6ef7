"""What a Transformer needs to lead noise to latents itself: it is told the time, and its states say the velocity.

Shapes: * any leading shape, W width, D channels of a latent.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from seqtok_core.layers import flow
from seqtok_core.layers.embed import time_features

_TIME_FEATURES = 64


class Denoiser(nn.Module):
    MUON_EXCLUDED = ("time_in.weight", "out.weight")

    def __init__(self, width: int, dim: int, prediction: flow.Prediction) -> None:
        super().__init__()
        self.prediction: flow.Prediction = prediction
        self.time_in = nn.Linear(_TIME_FEATURES, width)
        self.time_out = nn.Linear(width, width)
        self.out = nn.Linear(width, dim)
        for linear in (self.time_in, self.time_out):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def embed_time(self, t: Tensor) -> Tensor:
        """t (*) in [0, 1] -> (*, W), to be added to a noisy latent."""
        features = time_features(t.flatten(), _TIME_FEATURES).to(self.time_in.weight.dtype)
        return self.time_out(F.silu(self.time_in(features))).unflatten(0, t.shape)

    def velocity(self, h: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """h (*, W), x_t (*, D), t (*) -> (*, D) float32."""
        return flow.to_velocity(self.out(h).float(), x_t, t[..., None], self.prediction)
