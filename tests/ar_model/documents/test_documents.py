"""Documents: what they have in common with pairs, who sees whom, and that drawing and writing go on as was taught."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ar_model import SampleConfig
from ar_model.documents.continuing import draw_next, write_next
from ar_model.documents.layout import DocumentRows, document_slots
from ar_model.documents.objective import DocumentObjective, DocumentObjectiveConfig, rows_of_batch
from ar_model.sequences.base import Roles
from ar_model.sequences.cache import ReadOnce
from data_pipelines.captions.tokenizer import BOI, BOS, EOI, EOS, PAD
from data_pipelines.samples import DocumentBatch
from seqtok_core.foundation.errors import ConfigError
from seqtok_core.layers.randomness import Draws
from tests.ar_model.toy import CAPTIONS, DIM, LENGTH, latent_spec, random_latents, toy_generator, words

# Four documents: pictures, and whether there is a text behind the last of them.
PICTURES, ENDS = (2, 1, 0, 3), (True, False, True, False)


def documents(pictures: tuple[int, ...] = PICTURES, ends: tuple[bool, ...] = ENDS, first: int = 0) -> DocumentBatch:
    """Every second text of a document is empty."""
    most = max(pictures) + 1
    said = lambda row, place: CAPTIONS[(row + place) % 4] if place % 2 == 0 else ""  # noqa: E731
    texts = [[said(row, place) for place in range(most)] for row in range(len(ends))]
    text_ids = words().encode_batch(texts, most, 20)[0]
    rows = torch.tensor([count + end for count, end in zip(pictures, ends, strict=True)])
    text_ids[torch.arange(most) >= rows[:, None]] = PAD
    index = torch.arange(first, first + len(ends))
    return DocumentBatch(
        keys=[str(int(i)) for i in index],
        index=index,
        epoch=torch.zeros_like(index),
        text_ids=text_ids,
        latents=random_latents(len(ends) * most).view(len(ends), most, LENGTH, DIM),
        rows=rows,
        pictures=torch.tensor(pictures),
    )


def of_batch(batch: DocumentBatch, alone: bool | list[bool] = False) -> DocumentRows:
    told = torch.tensor([alone] * len(batch) if isinstance(alone, bool) else alone)
    return rows_of_batch(batch, latent_spec(), told)


def one_row(batch: DocumentBatch, row: int) -> DocumentBatch:
    return DocumentBatch(
        keys=batch.keys[row : row + 1],
        **{name: value[row : row + 1] for name, value in vars(batch).items() if isinstance(value, Tensor)},
    )


def test_a_text_and_a_picture_are_the_prompt_and_its_image_of_a_pair() -> None:
    model, batch = toy_generator(), documents((1,), (False,))
    rows = of_batch(batch)
    slots = document_slots(model.backbone, rows)
    h = model.backbone(slots.x, slots.positions, slots.mask)
    text, z = rows.text_ids[:, 0], rows.latents[:, 0]
    roles = Roles(torch.tensor([True]), torch.tensor([False]))
    pair = model.sequence.arrange(model.backbone, z, None, text, roles, Draws.alike(0, 1))
    assert torch.equal(slots.positions[0], pair.positions)
    assert torch.allclose(h, model.backbone(pair.x, pair.positions, pair.mask), atol=1e-6)


def test_a_picture_and_a_text_are_an_image_and_its_caption() -> None:
    model = toy_generator()
    text = torch.tensor([[words().encode(CAPTIONS[2])]])
    z = random_latents(1)
    rows = DocumentRows(
        torch.cat([torch.zeros_like(text), text], 1),
        torch.stack([z, torch.zeros_like(z)], 1),
        there=torch.ones(1, 2, dtype=torch.bool),
        picture=torch.tensor([[True, False]]),
        alone=torch.tensor([False]),
    )
    slots = document_slots(model.backbone, rows)
    texts, _ = slots.by_row(model.backbone(slots.x, slots.positions, slots.mask))
    roles, first = Roles(torch.tensor([False]), torch.tensor([True])), ReadOnce()
    pair = model.sequence.arrange(model.backbone, z, None, text[:, 0], roles, Draws.alike(0, 1))
    assert pair.captions is not None
    model.backbone(pair.x, pair.positions, pair.mask, first)
    states = pair.captions.states(model.backbone, first)[:1]
    assert torch.allclose(texts[:, 1], states, atol=1e-6)
    assert slots.targets[0, 1].tolist() == pair.captions.slots.targets[0].tolist()


def test_texts_lead_to_the_next_word_then_to_the_picture_or_the_end() -> None:
    rows = of_batch(documents())
    targets = document_slots(toy_generator().backbone, rows).targets
    for document, (count, end) in enumerate(zip(PICTURES, ENDS, strict=True)):
        for row in range(targets.shape[1]):
            asked = [i for i in targets[document, row].tolist() if i != PAD]
            text = [i for i in rows.text_ids[document, row].tolist() if i != PAD]
            if row >= count + end:
                assert asked == []
            else:
                assert asked == [*text, BOI if row < count else EOS]


@pytest.mark.parametrize("alone", [False, True])
def test_no_slot_sees_a_later_one_nor_a_picture_what_it_is_not_to_be_told(alone: bool) -> None:
    """By gradient: which slots the states of each picture and text depend on."""
    model, batch = toy_generator(), documents()
    slots = document_slots(model.backbone, of_batch(batch, alone))
    x = slots.x.detach().requires_grad_()
    h = model.backbone(x, slots.positions, slots.mask)
    row = torch.arange(x.shape[1]) // (x.shape[1] // slots.targets.shape[1])
    for document in range(len(batch)):
        for slot in range(x.shape[1]):
            if not slots.valid[document, slot]:
                continue
            (grad,) = torch.autograd.grad(h[document, slot].square().sum(), x, retain_graph=True)
            touched = grad.abs().sum(2) > 0
            assert not touched[torch.arange(len(batch)) != document].any()
            seen = (torch.arange(x.shape[1]) <= slot) & slots.valid[document]
            if alone:
                seen &= row == row[slot]
            assert torch.equal(touched[document], seen)


def test_alone_every_picture_is_what_it_is_without_any_document() -> None:
    """The same states as an image that has no prompt and nothing before it: what guidance compares with."""
    model, batch = toy_generator(), documents()
    rows = of_batch(batch, [True, False, False, True])
    slots = document_slots(model.backbone, rows)
    _, images = slots.by_row(model.backbone(slots.x, slots.positions, slots.mask))
    assert (slots.targets[0] == PAD).all()
    for document, row in [(0, 0), (0, 1), (3, 2)]:
        z, empty = rows.latents[document : document + 1, row], torch.zeros(1, 1, dtype=torch.int64)
        nobody = Roles(torch.tensor([False]), torch.tensor([False]))
        pair = model.sequence.arrange(model.backbone, z, None, empty, nobody, Draws.alike(0, 1))
        h = model.backbone(pair.x, pair.positions, pair.mask)[:, pair.latents]
        assert torch.allclose(images[document, row], h[0], atol=1e-6)


def test_a_document_does_not_depend_on_its_neighbours_nor_on_padding() -> None:
    model, batch = toy_generator(), documents()
    slots = document_slots(model.backbone, of_batch(batch))
    _, images = slots.by_row(model.backbone(slots.x, slots.positions, slots.mask))
    for document in range(len(batch)):
        own = document_slots(model.backbone, of_batch(one_row(batch, document)))
        _, single = own.by_row(model.backbone(own.x, own.positions, own.mask))
        count = PICTURES[document]
        assert torch.allclose(images[document, :count], single[0, :count], atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_what_is_drawn_next_is_what_the_states_of_the_whole_document_say(guidance: float) -> None:
    """Cached is uncached: with a head that draws nothing at random, each latent follows from the whole document, with
    the ones before it; and one document is drawn as among others."""
    model = toy_generator(head={"kind": "mse", "width": 32, "depth": 2})
    spec, pictures = model.spec, model.spec.denormalise(random_latents(3, seed=5))
    asked = [
        [CAPTIONS[1], pictures[0], "", CAPTIONS[2]],
        [pictures[1], pictures[2], CAPTIONS[3]],
        [pictures[2]],
        [CAPTIONS[0]],
    ]
    drawn = draw_next(model, asked, guidance=guidance)
    singly = [draw_next(model, [document], guidance=guidance)[0] for document in asked]
    assert torch.allclose(drawn, torch.stack(singly), atol=1e-5)
    head = model.head.sampler(1.0, getattr(SampleConfig(), model.head_kind))
    for number, document in enumerate(asked):
        batch = spoken([*document, drawn[number]])
        slots = document_slots(model.backbone, of_batch(batch))
        _, images = slots.by_row(model.backbone(slots.x, slots.positions, slots.mask))
        free = document_slots(model.backbone, of_batch(batch, True))
        _, untold = free.by_row(model.backbone(free.x, free.positions, free.mask))
        last, z = int(batch.pictures[0]) - 1, spec.normalise(drawn[number : number + 1])
        for place in range(LENGTH):
            found = head(images[:, last, place], untold[:, last, place], guidance, Draws.alike(0, 1), place)
            assert torch.allclose(found, z[:, place], atol=1e-4)


def spoken(parts: list[str | Tensor]) -> DocumentBatch:
    """A document that ends in a picture as the loader gives it."""
    texts, pictures, said = [], [], []
    for part in parts:
        if isinstance(part, str):
            said.append(part)
        else:
            texts.append(" ".join(said))
            pictures.append(part)
            said = []
    count, zero = len(pictures), torch.zeros(1, dtype=torch.int64)
    return DocumentBatch(
        keys=["0"],
        index=zero,
        epoch=zero,
        text_ids=words().encode_batch([texts], count, 40)[0],
        latents=torch.stack(pictures)[None],
        rows=torch.tensor([count]),
        pictures=torch.tensor([count]),
    )


def test_a_text_alone_is_drawn_as_a_prompt() -> None:
    model = toy_generator()
    drawn = draw_next(model, [[CAPTIONS[1]], [CAPTIONS[2]], [CAPTIONS[1]]], seed=3, guidance=2.0)
    asked = model.sample([CAPTIONS[1], CAPTIONS[2], CAPTIONS[1]], seed=3, guidance=2.0)
    assert torch.allclose(drawn, asked, atol=1e-5)
    assert not torch.allclose(drawn[0], drawn[2])
    assert not drawn.is_inference()


def test_a_picture_is_written_of_as_it_is_captioned() -> None:
    """And each word is the likeliest after the whole document so far, where a picture that follows ends a text."""
    model, z = toy_generator(), random_latents(2, seed=2)
    written = write_next(model, [[z[0]], [z[1]]], max_tokens=6)
    assert written == [write_next(model, [[row]], max_tokens=6)[0] for row in z]
    beams = write_next(model, [[z[0], CAPTIONS[1], z[1]], [CAPTIONS[3], z[0]]], beams=3, max_tokens=6)
    assert beams == [
        write_next(model, [document], beams=3, max_tokens=6)[0]
        for document in ([z[0], CAPTIONS[1], z[1]], [CAPTIONS[3], z[0]])
    ]
    begun = [CAPTIONS[1], z[0], z[1]]
    (own,) = write_next(model, [begun], max_tokens=4)
    ids: list[int] = []
    while len(ids) < 4:
        batch = spoken([*begun, z[0]])
        text_ids = torch.nn.functional.pad(batch.text_ids, (0, len(ids)))
        text_ids[0, 2, : len(ids)] = torch.tensor(ids)
        slots = document_slots(model.backbone, of_batch(DocumentBatch(**{**vars(batch), "text_ids": text_ids})))
        texts, _ = slots.by_row(model.backbone(slots.x, slots.positions, slots.mask))
        logits = model.backbone.text_logits(texts[0, 2, -1])
        logits[EOS] = torch.logaddexp(logits[EOS], logits[BOI])
        logits[[PAD, BOS, BOI, EOI]] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == EOS:
            break
    assert own == words().decode(ids)


def test_a_picture_that_follows_ends_a_text() -> None:
    model, z = toy_generator(), random_latents(1)[0]
    assert write_next(model, [[z]], max_tokens=3) != [""]
    slots = document_slots(model.backbone, of_batch(spoken([z, z])))
    texts, _ = slots.by_row(model.backbone(slots.x, slots.positions, slots.mask))
    with torch.no_grad():
        model.backbone.text_out.weight[BOI] = texts[0, 1, -1]  # behind the first picture nothing is likelier
    assert write_next(model, [[z]], max_tokens=3) == [""]


def test_the_loss_of_a_batch_is_the_mean_over_its_documents() -> None:
    model, batch = toy_generator(), documents()
    objective = DocumentObjective(model, DocumentObjectiveConfig(condition_dropout=0.4, input_noise=0.1), latent_spec())
    whole = objective(batch)
    parts = [objective(one_row(batch, row)) for row in range(len(batch))]
    for name in ("loss", "flow_loss", "text_loss"):
        assert torch.allclose(whole[name], torch.stack([part[name] for part in parts]).mean(), atol=1e-5), name
    whole["loss"].backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_every_picture_of_a_document_meets_noise_of_its_own() -> None:
    """Alone, two equal pictures have equal states: their losses differ by the noise."""
    model, one = toy_generator(), documents((1,), (False,))
    objective = DocumentObjective(model, DocumentObjectiveConfig(condition_dropout=0.9999), latent_spec())
    latents = one.latents[:, :1].expand(-1, 2, -1, -1)
    text_ids, count = one.text_ids[:, :1].expand(-1, 2, -1), torch.tensor([2])
    twice = DocumentBatch(**{**vars(one), "latents": latents, "text_ids": text_ids, "rows": count, "pictures": count})
    assert abs(float(objective(one)["flow_loss"] - objective(twice)["flow_loss"])) > 1e-3


def test_a_model_learns_to_draw_what_the_document_showed_before() -> None:
    """Pictures of a coin; behind each the same one comes again. Without the first a coin is all that can be drawn."""
    torch.manual_seed(0)
    z = torch.randn(128, 1, 1, 1).sign().expand(-1, 2, LENGTH, DIM) + 0.1 * torch.randn(128, 2, LENGTH, DIM)
    model = toy_generator()
    spec, every = model.spec, torch.full((128,), 2)
    batch = DocumentBatch(
        keys=[str(i) for i in range(128)],
        index=torch.arange(128),
        epoch=torch.zeros(128, dtype=torch.int64),
        text_ids=torch.full((128, 2, 1), PAD),
        latents=spec.denormalise(z.flatten(0, 1)).view_as(z),
        rows=every,
        pictures=every,
    )
    objective = DocumentObjective(model, DocumentObjectiveConfig(condition_dropout=0.0), latent_spec())
    optimizer = torch.optim.AdamW(objective.parameters(), lr=4e-3)
    for epoch in range(60):
        batch = DocumentBatch(**{**vars(batch), "epoch": torch.full((128,), epoch)})
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    drawn = spec.normalise(draw_next(model, [[picture] for picture in batch.latents[:64, 0]], guidance=1.0))
    right = drawn.mean((1, 2)).sign() == z[:64, 0].mean((1, 2)).sign()
    assert float(right.float().mean()) > 0.95


def test_texts_are_read_as_they_stand_and_words_of_no_caption_are_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    """A loader reads them so: `captions.model` knows the words of captions, and documents have others."""
    model = toy_generator()
    plain, other = (draw_next(model, [[text]], flow={"steps": 2}) for text in ("a red circle", "A red circle"))
    assert (plain - other).abs().max() > 1e-3
    draw_next(model, [["and then a circle"]], flow={"steps": 2})
    assert not recwarn.list


def test_what_is_no_document_and_who_reads_none() -> None:
    model = toy_generator()
    with pytest.raises(ConfigError, match="document 0: is a text"):
        draw_next(model, [CAPTIONS[0]])
    with pytest.raises(ConfigError, match="document 1: 7 is neither a text nor"):
        draw_next(model, [[CAPTIONS[0]], [7]])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"latents of shape \(1, 2, 3\).*k = 6 are what document 0 may hold"):
        write_next(model, [[torch.zeros(2, DIM)]])
    with pytest.raises(ConfigError, match="batch=0"):
        draw_next(model, [[CAPTIONS[0]]], batch=0)
    with pytest.raises(ConfigError, match="weak=x: documents"):
        draw_next(model, [[CAPTIONS[0]]], weak="x")
    with pytest.raises(ConfigError, match="candidates are for captions of one picture"):
        write_next(model, [[CAPTIONS[0]]], candidates=2)
    mute = toy_generator()
    torch.nn.init.zeros_(mute.backbone.text_out.weight)
    with pytest.raises(ConfigError, match="has not learnt to write"):
        write_next(mute, [[CAPTIONS[0]]])
    assert draw_next(model, []).shape == (0, LENGTH, DIM)
    assert write_next(model, []) == []
    for changes, message in [
        ({"sequence": {"kind": "full_image"}}, "sequence.kind=full_image"),
        ({"sequence": {"kind": "noisy_copies"}}, "sequence.kind=noisy_copies"),
        ({"sequence": {"prefix_dropout": 0.5}}, "sequence.prefix_dropout: documents do not teach this"),
        ({"writer": "own"}, "writer=own"),
        ({"sequence": {"caption_levels": 2}}, "caption_levels=2"),
    ]:
        with pytest.raises(ConfigError, match=message):
            DocumentObjective(toy_generator(**changes), DocumentObjectiveConfig(), latent_spec())
    batch = documents()
    long = DocumentBatch(**{**vars(batch), "text_ids": torch.nn.functional.pad(batch.text_ids, (0, 60))})
    with pytest.raises(ConfigError, match="raise max_text_tokens=40"):
        DocumentObjective(model, DocumentObjectiveConfig(), latent_spec())(long)
