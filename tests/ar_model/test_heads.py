"""The heads: each sampler follows its own definition or a trusted one, and learns a law that it is shown, or cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ar_model import FlowHeadConfig, GeneratorConfig, GeneratorObjective, GeneratorObjectiveConfig, SeqGenerator
from ar_model.heads.base import Head
from ar_model.heads.build import HEADS, HeadSampleConfig, build_head
from ar_model.heads.categorical import CategoricalHead
from ar_model.heads.diffusion import TIMES, DiffusionSampleConfig, kept_signal
from ar_model.heads.flow import FlowSampleConfig, GuidedTarget
from seq_tokenizer.latents import LatentSpec
from seqtok_core.layers import flow
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import DIM, LENGTH, latent_spec, random_latents, toy_batch, toy_generator
from tests.slow import rest_slow

WIDTH = 16
CODEBOOK = dict.fromkeys(HEADS) | {"categorical": (9, 2)}
ONE = LatentSpec(1, 1, torch.zeros(1, 1), torch.ones(1, 1), "aaaa")


def own_draws(rows: int, epoch: int = 0) -> Draws:
    index = torch.arange(rows)
    return Draws(0, torch.full_like(index, epoch), index)


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_sampling_is_eulers_walk_along_the_network(prediction: flow.Prediction) -> None:
    torch.manual_seed(0)
    head = build_head(FlowHeadConfig(width=24, depth=2, prediction=prediction), WIDTH, latent_spec())
    for parameter in head.parameters():
        parameter.normal_(std=0.3)
    h, free = torch.randn(2, 5, WIDTH)
    draws, steps, scale = own_draws(5), 4, 2.0
    x = draws.normal("sample/3", (DIM,))
    for i in range(steps):
        t = torch.tensor([i / steps])
        both = [head.network(x, head.time_modulation(t), head.state_out(s)) for s in (h, free)]
        v, v_free = (flow.to_velocity(output, x, t, prediction) for output in both)
        x = x + (v_free + scale * (v - v_free)) / steps
    got = head.sampler(1.0, FlowSampleConfig(steps=steps, solver="euler"))(h, free, scale, draws, place=3)
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-5)


def test_no_gradient_comes_through_a_guided_target() -> None:
    """Where prompt and no prompt say the same, it is the data's own target, and the gradient is that one's. Through the
    target it would be (1 - share) times as large."""
    torch.manual_seed(0)
    head = build_head(FlowHeadConfig(width=24, depth=2), WIDTH, latent_spec())
    torch.nn.init.normal_(head.out.weight)
    h, free = (torch.randn(5, LENGTH, WIDTH).requires_grad_() for _ in range(2))
    z, t = torch.randn(5, LENGTH, DIM), torch.rand(5, 3)
    (plain,) = torch.autograd.grad(head.loss_at(h, z, t, own_draws(5)).sum(), h)
    alike = GuidedTarget(h, torch.full((5,), 0.4))
    torch.testing.assert_close(torch.autograd.grad(head.loss_at(h, z, t, own_draws(5), alike).sum(), h)[0], plain)
    head.loss_at(h, z, t, own_draws(5), GuidedTarget(free, torch.full((5,), 0.4))).sum().backward()
    assert free.grad is None
    assert not torch.allclose(h.grad, plain)  # type: ignore[arg-type]


def test_every_token_and_prompt_has_its_own_standard_normal_noise() -> None:
    """A head without velocity hands back the noise that it began with."""
    model = toy_generator()
    torch.nn.init.zeros_(model.head.out.weight)
    torch.nn.init.zeros_(model.head.out.bias)
    noise = model.spec.normalise(model.sample(["a red circle"] * 400, guidance=1.0, flow={"steps": 1}))
    flat = noise.flatten(1)  # (400, K D)
    covariance = torch.cov(flat.T)
    assert float((covariance - torch.eye(LENGTH * DIM)).abs().max()) < 0.3  # 1 / sqrt(400) = 0.05
    assert float(flat.mean(0).abs().max()) < 0.25


def randomised(kind: str, **settings: object) -> Head:
    torch.manual_seed(0)
    values = {"head": {"kind": kind, "width": 24, "depth": 2, **settings}}
    head = build_head(GeneratorConfig.parse(values).head, WIDTH, latent_spec(codebook=CODEBOOK[kind]))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.3)
    if isinstance(head, CategoricalHead):
        head.take_codebook(torch.randn(head.table.shape))
    return head


def test_the_noise_of_training_is_that_of_diffusers() -> None:
    from diffusers import DDPMScheduler

    expected = DDPMScheduler(TIMES, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    torch.testing.assert_close(kept_signal(), expected, rtol=1e-4, atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_diffusion_steps_are_those_of_diffusers(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers.schedulers.scheduling_ddpm as module
    from diffusers import DDIMScheduler, DDPMScheduler

    head, draws, steps, scale = randomised("diffusion"), own_draws(5), 20, 2.0
    h, free = torch.randn(2, 5, WIDTH)
    kind = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[solver]
    options = {"variance_type": "fixed_small"} if solver == "ddpm" else {"set_alpha_to_one": True}
    scheduler = kind(TIMES, beta_schedule="squaredcos_cap_v2", clip_sample=False, **options)
    scheduler.set_timesteps(steps)
    x = draws.normal("sample/3", (DIM,))
    for step, t in enumerate(scheduler.timesteps.tolist()):
        noise = draws.normal(f"sample/3/{step}", (DIM,))
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise)  # noqa: B023
        of_time = head.time_modulation(torch.tensor([t / TIMES]))
        with_prompt, without = (head.network(x, of_time, head.state_out(state)) for state in (h, free))
        x = scheduler.step(without + scale * (with_prompt - without), t, x).prev_sample
    got = head.sampler(1.0, DiffusionSampleConfig(steps=steps, solver=solver))(h, free, scale, draws, place=3)
    torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_likelihoods_are_those_of_torch() -> None:
    h, z = torch.randn(4, 3, WIDTH), torch.randn(4, 3, DIM)
    gaussian = randomised("gaussian")
    mean, log_std = gaussian.network(h).chunk(2, -1)
    expected = -torch.distributions.Normal(mean, log_std.exp()).log_prob(z).mean(-1)
    torch.testing.assert_close(gaussian.loss(h, z, own_draws(4)), expected)
    mixture = randomised("mixture", components=3)
    logits, mean, log_std = mixture.parts(h)
    parts = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    law = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=logits), parts)
    torch.testing.assert_close(mixture.loss(h, z, own_draws(4)), -law.log_prob(z) / DIM)


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_keeps_the_laws_of_sampling(kind: str) -> None:
    """Guidance 1 is none, a row is its own, the same seed gives the same bits, temperature 0 draws nothing."""
    head = randomised(kind)
    h, free = torch.randn(2, 5, WIDTH)
    part = HeadSampleConfig().model_dump()[kind]
    settings = type(getattr(HeadSampleConfig(), kind)).parse(part | ({"steps": 4} if "steps" in part else {}))
    with torch.no_grad():
        draw, draws = head.sampler(1.0, settings), own_draws(5)
        plain = draw(h, None, 1.0, draws, 0)
        torch.testing.assert_close(draw(h, free, 1.0, draws, 0), plain, rtol=1e-3, atol=1e-4)
        assert torch.equal(draw(h, free, 2.0, draws, 0), draw(h, free, 2.0, draws, 0))
        assert (draw(h, free, 6.0, draws, 0) - plain).abs().max() > 1e-3
        alone = Draws(0, draws.epoch[2:3], draws.index[2:3])
        torch.testing.assert_close(
            draw(h[2:3], free[2:3], 2.0, alone, 0), draw(h, free, 2.0, draws, 0)[2:3], rtol=1e-3, atol=1e-4
        )
        steady = head.sampler(0.0, settings)
        torch.testing.assert_close(steady(h[:1], None, 1.0, own_draws(1), 0), steady(h[:1], None, 1.0, own_draws(1), 0))
    loss = head.loss(h[:, None], torch.randn(5, 1, DIM), draws)
    assert loss.shape == (5, 1)
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_serves_a_sequence_model(kind: str, tmp_path: Path) -> None:
    model = toy_generator(codebook=CODEBOOK[kind], head={"kind": kind, "width": 24, "depth": 2})
    losses = GeneratorObjective(model, GeneratorObjectiveConfig(), model.spec)(
        toy_batch([["a red circle"]] * 4, random_latents(4))
    )
    assert set(losses) == {"loss", f"{kind}_loss"}
    losses["loss"].backward()
    assert [n for n, p in model.head.named_parameters() if p.grad is None] == []
    wanted = {"diffusion": {"steps": 5}, "flow": {"steps": 3}, "mean_flow": {"steps": 1}}
    drawn = model.sample(["a red circle", "one shape"], guidance=2.0, **wanted)
    assert drawn.shape == (2, LENGTH, DIM)
    assert torch.isfinite(drawn).all()
    model.save_pretrained(tmp_path)
    again = SeqGenerator.from_pretrained(tmp_path)
    assert torch.equal(again.sample(["a red circle", "one shape"], guidance=2.0, **wanted), drawn)


def learnt(head: Head, rows: int = 64, steps: int = 200) -> torch.Tensor:
    """(2, rows, 1) samples for two states, after showing the head -1 or +1 (evenly) and a steady 2."""
    state = torch.eye(2, WIDTH).repeat_interleave(rows, 0)[:, None]  # (2 rows, 1, W)
    sign = torch.where(torch.arange(rows) % 2 > 0, 1.0, -1.0)
    z = torch.cat([sign, torch.full((rows,), 2.0)])[:, None, None]
    optimizer = torch.optim.AdamW(head.parameters(), lr=4e-3)
    for step in range(steps):
        optimizer.zero_grad()
        head.loss(state, z, own_draws(2 * rows, step)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        settings = {"flow": FlowSampleConfig(steps=20)}.get(head.kind, getattr(HeadSampleConfig(), head.kind))
        sample = head.sampler(1.0, settings)
        return sample(state[:, 0], None, 1.0, own_draws(2 * rows, steps), 0).view(2, rows, 1)


KINDS = [{"kind": "flow"}, {"kind": "flow", "prediction": "data"}, *({"kind": k} for k in ("diffusion", "mixture"))]


@pytest.mark.parametrize("head", rest_slow([*KINDS, {"kind": "mean_flow"}]))
def test_two_modes_are_learnt_as_two_modes(head: dict[str, str]) -> None:
    torch.manual_seed(0)
    config = GeneratorConfig.parse({"head": {"width": 32, "depth": 2, **head}}).head
    either, steady = learnt(build_head(config, WIDTH, ONE))
    assert float((steady - 2.0).abs().mean()) < 0.2
    assert float((either.abs() - 1.0).abs().mean()) < 0.2
    assert 0.3 < float((either > 0).float().mean()) < 0.7


@pytest.mark.slow
def test_one_mode_cannot_be_two() -> None:
    """What the mean of -1 and +1 is, and what a single Gaussian makes of it."""
    torch.manual_seed(0)
    for kind, spread in (("mse", 0.0), ("gaussian", 1.0)):
        config = GeneratorConfig.parse({"head": {"kind": kind, "width": 32, "depth": 2}}).head
        either, steady = learnt(build_head(config, WIDTH, ONE))
        assert float((steady - 2.0).abs().mean()) < 0.2
        assert float(either.mean()) == pytest.approx(0.0, abs=0.35)
        assert float(either.std()) == pytest.approx(spread, abs=0.3)
