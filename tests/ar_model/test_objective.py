"""The objective: what is drawn per sample is the sample's own, every weight learns, foreigners stay out."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from ar_model import GeneratorObjective, GeneratorObjectiveConfig
from ar_model.objective import draw_level
from ar_model.sequences.base import Roles
from ar_model.sequences.layout import slot_positions
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS
from data_pipelines.samples import LatentTextBatch
from seqtok_core.foundation.errors import ConfigError, MismatchError
from seqtok_core.layers.blocks import causal_mask
from seqtok_core.layers.randomness import Draws
from seqtok_core.training.engine.recompute import wrapped
from tests.ar_model.toy import CAPTIONS, LENGTH, latent_spec, random_latents, toy_batch, toy_generator, words

PYRAMID = [["one shape", "a red circle"], ["a blue square above a red circle"], ["a blue square"], []]
BOTH = GeneratorObjectiveConfig(text_to_image=0.5, prompt_weight=0.1, input_noise=0.1, condition_dropout=0.3)


def objective(config: GeneratorObjectiveConfig, **changes: object) -> GeneratorObjective:
    return GeneratorObjective(toy_generator(**changes), config, latent_spec())


def part(batch: LatentTextBatch, rows: slice) -> LatentTextBatch:
    return toy_batch(PYRAMID[rows], batch.latents[rows], first=rows.start or 0)


@pytest.mark.parametrize(
    ("config", "writer"),
    [(GeneratorObjectiveConfig(), "shared"), (BOTH, "shared"), (BOTH, "own")],
    ids=["text to image", "both", "own writer"],
)
def test_micro_batches_have_the_loss_of_the_whole(config: GeneratorObjectiveConfig, writer: str) -> None:
    """Also of another padding: the halves are trimmed to their own longest caption."""
    batch, model = toy_batch(PYRAMID, random_latents(4)), objective(config, writer=writer)
    whole = model(batch)
    halves = [model(part(batch, rows)) for rows in (slice(0, 2), slice(2, 4))]
    for name, value in whole.items():
        torch.testing.assert_close(sum(h[name] for h in halves) / 2, value, rtol=1e-4, atol=1e-5)
    assert set(whole) == (
        {"loss", "flow_loss", "text_loss", "prompt_loss"} if config is BOTH else {"loss", "flow_loss"}
    )


def test_bfloat16_weights_have_nearly_the_same_loss() -> None:
    batch, model = toy_batch(PYRAMID, random_latents(4)), objective(BOTH)
    expected = model(batch)
    for name, value in model.bfloat16()(batch).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], rtol=0.03, atol=0.03)


GUIDED = GeneratorObjectiveConfig(guided_targets=1.5, condition_dropout=0.5, input_noise=0.1)
PLAIN = GeneratorObjectiveConfig(condition_dropout=0.5, input_noise=0.1)


def test_guided_targets_change_what_prompts_are_taught() -> None:
    batch = toy_batch(PYRAMID, random_latents(4))
    assert not torch.allclose(objective(GUIDED)(batch)["loss"], objective(PLAIN)(batch)["loss"])


def test_guided_targets_change_nothing_where_the_prompt_says_nothing() -> None:
    """Then the states with and without it are the same."""
    batch = toy_batch([[], [], [], []], random_latents(4))
    guided, plain = objective(GUIDED), objective(PLAIN)
    torch.testing.assert_close(guided(batch)["loss"], plain(batch)["loss"])
    for model in (guided, plain):
        model(batch)["loss"].backward()
    for a, b in zip(guided.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_guided_targets_are_for_the_flow_head() -> None:
    with pytest.raises(ConfigError, match=r"guided_targets=1\.5: is for the flow head"):
        objective(GUIDED, head={"kind": "mse"})


def test_another_epoch_is_another_draw_and_the_same_one_the_same() -> None:
    batch, model = toy_batch(PYRAMID, random_latents(4)), objective(BOTH)
    later = LatentTextBatch(**{**vars(batch), "epoch": batch.epoch + 1})
    assert torch.equal(model(batch)["loss"], model(batch)["loss"])
    assert not torch.equal(model(batch)["loss"], model(later)["loss"])


def test_conditions_are_dropped_at_their_rate_and_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    import ar_model.sequences.next_token as module

    kept: list[torch.Tensor] = []
    original = module.prompt_block

    def spy(text_ids: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        kept.append(keep)
        return original(text_ids, keep)

    monkeypatch.setattr(module, "prompt_block", spy)
    model = objective(GeneratorObjectiveConfig(condition_dropout=0.25))
    rows = 800
    batch = toy_batch([["a red circle"]] * rows, random_latents(rows))
    model(batch)
    model(toy_batch([["a red circle"]] * 10, random_latents(10), first=90))
    assert float(kept[0].float().mean()) == pytest.approx(0.75, abs=0.05)
    assert torch.equal(kept[0][90:100], kept[1])


def test_levels_are_drawn_finest_mostly_and_only_where_there_is_a_caption() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    rows = 4000
    u = Draws(0, torch.zeros(rows, dtype=torch.int64), torch.arange(rows)).uniform("level")
    shares = []
    for row in mask:
        level = draw_level(row.expand(rows, -1), u, finest_share=0.7)
        shares.append([float((level == i).float().mean()) for i in range(-1, 4)])
    for got, expected in zip(
        shares, [[0, 0.1, 0.1, 0.1, 0.7], [0, 0.3, 0, 0.7, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]], strict=True
    ):
        assert got == pytest.approx(expected, abs=0.03)
    assert draw_level(mask, torch.full((4,), 0.9999999), 1.0).tolist() == [3, 2, 1, -1]


def test_image_positions_learn_from_the_prompt_in_one_direction_only() -> None:
    """text -> image: the prompt shapes the flow loss. image -> text: the caption cannot, it comes later."""
    z, one, other = random_latents(2), [["a red circle"]] * 2, [["a blue square"]] * 2
    reads = objective(GeneratorObjectiveConfig(condition_dropout=0.0))
    assert not torch.allclose(reads(toy_batch(one, z))["flow_loss"], reads(toy_batch(other, z))["flow_loss"])
    writes = objective(GeneratorObjectiveConfig(text_to_image=0.0))
    a, b = writes(toy_batch(one, z)), writes(toy_batch(other, z))
    torch.testing.assert_close(a["flow_loss"], b["flow_loss"])
    assert not torch.allclose(a["text_loss"], b["text_loss"])
    text = writes(toy_batch(one, z + 1.0))["text_loss"]
    assert not torch.allclose(a["text_loss"], text), "captions must be written from the image"


def test_caption_loss_is_the_cross_entropy_of_each_next_word() -> None:
    batch, z = toy_batch(PYRAMID[1:3], random_latents(2)), random_latents(2)
    model = objective(GeneratorObjectiveConfig(text_to_image=0.0))
    backbone, spec = model.generator.backbone, model.generator.spec
    losses = []
    for row, caption in enumerate(PYRAMID[1:3]):
        text = words().encode(caption[0])
        before = backbone.embed_text(torch.tensor([[BOS, BOI]]))
        after = backbone.embed_text(torch.tensor([[EOI, *text]]))
        image = backbone.embed_latents(spec.normalise(z[row : row + 1]))
        x = torch.cat([before, image, after], 1)
        h = backbone(x, slot_positions(2, x.shape[1]), causal_mask(x.shape[1]))
        logits = backbone.text_logits(h[0, 2 + LENGTH :])
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([*text, EOS])))
    torch.testing.assert_close(model(batch)["text_loss"], torch.stack(losses).mean().detach())


@pytest.mark.parametrize("writer", ["shared", "own"])
def test_every_weight_learns(writer: str) -> None:
    model = objective(BOTH, writer=writer)
    model(toy_batch(PYRAMID * 4, random_latents(16)))["loss"].backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("writer", ["shared", "own"])
def test_blocks_computed_twice_have_the_same_gradients(writer: str) -> None:
    """Captions go on from keys and values of the first pass, which activation checkpointing computes again."""
    grads = []
    for again in (False, True):
        model = objective(BOTH, writer=writer)
        with wrapped(model) if again else nullcontext():
            model(toy_batch(PYRAMID * 4, random_latents(16)))["loss"].backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


def test_captions_of_an_own_writer_leave_the_drawing_alone() -> None:
    batch, grads = toy_batch(PYRAMID * 4, random_latents(16)), []
    for weight in (0.0, 3.0):
        model = objective(BOTH.model_copy(update={"text_weight": weight}), writer="own")
        model(batch)["loss"].backward()
        names = [name for name, _ in model.named_parameters()]
        grads.append([p.grad for p in model.parameters()])
    same = {name: torch.equal(*pair) for name, *pair in zip(names, *grads, strict=True)}
    assert {name.partition("writer.")[0] for name, equal in same.items() if not equal} == {"generator.backbone."}
    assert all(equal == ("backbone.writer." not in name) for name, equal in same.items())


def test_what_is_for_captions_is_for_who_writes() -> None:
    for changes in ({"writer": "own"}, {"sequence": {"caption_dropout": 0.1}}):
        with pytest.raises(ConfigError, match="no caption is ever written"):
            objective(GeneratorObjectiveConfig(), **changes)


def test_pictures_are_hidden_from_captions_at_their_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Roles] = []
    model = objective(GeneratorObjectiveConfig(text_to_image=0.2), sequence={"caption_dropout": 0.25})
    arrange = model.generator.sequence.arrange
    monkeypatch.setattr(model.generator.sequence, "arrange", lambda *a: seen.append(a[4]) or arrange(*a))
    model(toy_batch([["a red circle"]] * 800, random_latents(800)))
    (roles,) = seen
    assert float((roles.told == 0).float().mean()) == pytest.approx(0.25, abs=0.05)
    assert set(roles.told.tolist()) == {0, 1 << 30}


def test_muon_leaves_words_and_latents_alone() -> None:
    model = objective(BOTH)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    excluded = model.muon_excluded()
    assert excluded <= shapes.keys()
    vocabulary, dim = model.generator.captions.vocab_size, model.generator.spec.dim
    for name, shape in shapes.items():
        if len(shape) == 2 and {vocabulary, dim, LENGTH} & set(shape):
            assert name in excluded, name


def test_foreign_latents_are_refused_by_name() -> None:
    model = toy_generator()
    with pytest.raises(MismatchError, match=r"latents/other comes from tokenizer bbbb.*tokenizer aaaa"):
        GeneratorObjective(model, BOTH, latent_spec("bbbb"), "latents/other")
    with pytest.raises(MismatchError, match="9 x 3"):
        GeneratorObjective(model, BOTH, latent_spec(length=9), "latents/other")


def test_too_long_captions_are_refused() -> None:
    long = toy_batch([["zebra " * 9]], random_latents(1), max_tokens=80)
    with pytest.raises(ConfigError, match="max_text_tokens=40"):
        objective(GeneratorObjectiveConfig())(long)


@pytest.mark.slow
def test_samples_obey_their_captions_after_a_short_training() -> None:
    """The law of the latents depends on the caption, and each latent on the one before it."""
    torch.manual_seed(0)
    side = torch.tensor([1.0 if i % 2 else -1.0 for i in range(128)])
    noise = random_latents(128)
    z = noise.cumsum(1) * 0.3 + side[:, None, None]
    model = GeneratorObjective(toy_generator(), GeneratorObjectiveConfig(condition_dropout=0.2), latent_spec())
    batch = toy_batch([[CAPTIONS[1] if s > 0 else CAPTIONS[3]] for s in side], z)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = None
    for epoch in range(80):
        batch = LatentTextBatch(**{**vars(batch), "epoch": torch.full_like(batch.index, epoch)})
        loss = model(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = first or float(loss.detach())
    assert float(loss.detach()) < 0.5 * first
    samples = model.generator.sample([CAPTIONS[1]] * 50 + [CAPTIONS[3]] * 50, guidance=1.0)[:, 0].mean(1)
    assert float((samples[:50] > 0).float().mean()) > 0.9
    assert float((samples[50:] < 0).float().mean()) > 0.9
    assert BOS not in batch.text_ids
