"""Any prefix -> one of the pictures that it may mean: rectified flow straight in pixel patches, given the prefix.

Where the pixel decoder must draw the mean of all pictures that begin with these latents, this one draws a sharp one.
Latents (absent beyond the prefix) and noisy patches pass one Transformer, modulated by the flow time, which predicts
the clean picture; its error counts as that of the velocity. Source: JiT (Li and He 2025, arXiv:2511.13720), whose
condition is a class; here it is the prefix. Shapes: B images, K latents, D channels, N patches, W width, S steps.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seq_tokenizer.decoders.base import Decoder
from seq_tokenizer.decoders.pixel import PixelHead
from seq_tokenizer.encoders.patches import PatchConfig, PatchInput
from seq_tokenizer.orders.prefix import whole_sequence
from seq_tokenizer.shape import TokenizerShape
from seqtok_core.foundation.config import Config
from seqtok_core.layers import flow
from seqtok_core.layers.blocks import ModulatedBlock, init_linear
from seqtok_core.layers.embed import time_features, unpatchify
from seqtok_core.layers.randomness import Draws

_TIME_FEATURES = 64


class FlowDecoderConfig(Config):
    """How noise is led to a picture, and how that is learned."""

    kind: Literal["flow"] = "flow"
    steps: Annotated[int, Field(ge=1)] = 8  # of the solver, per picture
    solver: flow.Solver = "euler"
    guidance: Annotated[float, Field(ge=0)] = 1.0  # 1: the prefix as it is; above: away from pictures of no prefix
    seed: int = 0  # of the noise where no other seed is asked for
    dropped: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of training without any token: what guidance starts from
    time_mean: float = -0.8  # of the logit of t in training: below 0 means more often near the noise
    time_std: Annotated[float, Field(gt=0)] = 0.8


class FlowDecoder(Decoder):
    generative: ClassVar[bool] = True
    MUON_EXCLUDED = ("positions", "time_in.weight", "pixels.linear.weight")

    def __init__(self, config: FlowDecoderConfig, shape: TokenizerShape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        width = shape.width
        self.patches = PatchInput(PatchConfig(), shape)
        self.project = nn.Linear(shape.latent_dim, width)
        self.absent = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.randn(shape.num_latents, width))
        self.time_in = nn.Linear(_TIME_FEATURES, width)
        self.time_out = nn.Linear(width, 8 * width)  # 6 W for the blocks, 2 W for the last norm
        self.blocks = nn.ModuleList(ModulatedBlock(width, shape.heads) for _ in range(shape.decoder_layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.pixels = PixelHead(width, 3 * shape.patch_size**2)
        init_linear(self.blocks, shape.decoder_layers)
        nn.init.normal_(self.project.weight, std=shape.latent_dim**-0.5)
        nn.init.normal_(self.time_out.weight, std=0.2 * width**-0.5)  # modulations start small
        nn.init.zeros_(self.time_out.bias)

    def forward(
        self,
        latents: Tensor,
        num_tokens: Tensor | int,
        draws: Draws | None = None,
        size: tuple[int, int] | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        rows, config = len(latents), self.config
        draws = draws or Draws.alike(config.seed, rows, latents.device)
        noise = draws.normal("flow decoder/noise", (3, *(size or (self.shape.image_size, self.shape.image_size))))
        times = flow.time_grid(config.steps)
        modulation, grid = self._modulation(times.to(latents.device)), times.tolist()
        tokens, guided = self._tokens(latents, num_tokens), config.guidance != 1.0
        if guided:
            tokens = torch.cat([tokens, self._tokens(latents, 0)])

        def velocity(x: Tensor, at: int) -> Tensor:
            x_t = torch.cat([x, x]) if guided else x
            picture = self._picture(x_t, tokens, modulation[at : at + 1])
            v = flow.to_velocity(picture, x_t, grid[at], "data")
            if not guided:
                return v
            given, free = v.chunk(2)
            return flow.guide(given, free, config.guidance)

        return flow.SOLVERS[config.solver](velocity, noise, times)

    def loss(self, latents: Tensor, num_tokens: Tensor | int, pixels: Tensor, draws: Draws) -> Tensor:
        config = self.config
        u = draws.uniform("flow decoder/time", (1,))
        t = flow.logit_normal_times(u, config.time_mean, config.time_std)[:, 0]  # (B,)
        noise = draws.normal("flow decoder/noise", tuple(pixels.shape[1:]))
        free = draws.uniform("flow decoder/dropped") < config.dropped
        lengths = torch.as_tensor(num_tokens, device=latents.device).expand(len(latents)).masked_fill(free, 0)
        t4 = t[:, None, None, None]
        x_t = flow.interpolate(noise, pixels, t4)
        picture = self._picture(x_t, self._tokens(latents, lengths), self._modulation(t))
        # Both sides with the same bound near t = 1, so that the right picture has no loss there either.
        error = flow.to_velocity(picture, x_t, t4, "data") - flow.to_velocity(pixels, x_t, t4, "data")
        return error.square().mean((1, 2, 3))

    def _tokens(self, latents: Tensor, num_tokens: Tensor | int) -> Tensor:
        """(B, k, D) -> (B, K, W)."""
        return whole_sequence(self.project(latents), num_tokens, self.absent, self.positions)

    def _modulation(self, t: Tensor) -> Tensor:
        """t (M,) -> (M, 8, W)."""
        features = time_features(t, _TIME_FEATURES).to(self.time_in.weight.dtype)
        return self.time_out(F.silu(self.time_in(features))).unflatten(-1, (8, -1))

    def _picture(self, x_t: Tensor, tokens: Tensor, modulation: Tensor) -> Tensor:
        """x_t (B, 3, H, W), tokens (B, K, W), modulation (B or 1, 8, W) -> the clean picture, (B, 3, H, W) float32."""
        patches = self.patches(x_t)
        count = patches.shape[1]
        x = torch.cat([patches, tokens.to(patches.dtype)], 1)
        for block in self.blocks[:-1]:
            x = block(x, modulation[:, :6])
        x = self.blocks[-1](x, modulation[:, :6], rows=slice(count))  # latents end here
        shift, scale = modulation[:, 6:, None].to(x.dtype).unbind(1)
        h = torch.addcmul(shift, self.norm(x), 1 + scale)
        return unpatchify(self.pixels(h), self.shape.patch_size, x_t.shape[-2]).float()
