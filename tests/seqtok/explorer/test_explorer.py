"""What the explorer answers is what the models say: pictures, words and drawings, to one page or to many at once."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from ar_model import SeqGenerator
from data_pipelines.pictures.decode import decode_pixels
from data_pipelines.scenes import make_scene
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all, encode_all
from seqtok.explorer.app import build_app
from seqtok.explorer.found import find_parts
from seqtok.explorer.studio import Studio
from seqtok.explorer.wire import from_base64, to_base64
from tests.seqtok.explorer.toy import DIM, LENGTH, SIZE, client_of, make_run, picture_bytes, refused, told


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def client(run: Path) -> TestClient:
    return client_of(run)


@pytest.fixture(scope="module")
def tokenizer(run: Path) -> SeqTokenizer:
    return SeqTokenizer.from_pretrained(run / "tokenizer" / "model")


@pytest.fixture(scope="module")
def generator(run: Path) -> SeqGenerator:
    return SeqGenerator.from_pretrained(run / "generator" / "model")


@pytest.fixture(scope="module")
def opened(client: TestClient) -> dict[str, Any]:
    return client.post("/api/picture", content=picture_bytes()).json()


def pixels_of(uri: str) -> torch.Tensor:
    """(3, H, W) uint8."""
    assert uri.startswith("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def latents_of(answer: dict[str, Any]) -> torch.Tensor:
    return from_base64(answer["latents"], LENGTH, DIM)


def test_the_page_knows_what_can_be_asked(client: TestClient):
    about = client.get("/api/about").json()
    assert (about["tokens"], about["channels"], about["size"]) == (LENGTH, DIM, SIZE)
    assert about["held_out"] == {"count": 8, "split": "test"}
    assert about["captions"] > 8
    assert about["report"] is True
    assert about["generator"]["captions_from_prefixes"] is True


def test_a_picture_is_read_as_in_training(opened: dict[str, Any], tokenizer: SeqTokenizer):
    picture = torch.from_numpy(decode_pixels(picture_bytes(), SIZE).copy()).permute(2, 0, 1)
    assert torch.equal(pixels_of(opened["image"]), picture)
    torch.testing.assert_close(latents_of(opened), encode_all(tokenizer, picture[None])[0])
    assert opened["looks"]["grid"] == [4, 4]
    assert len(base64.b64decode(opened["looks"]["maps"])) == LENGTH * 16


def test_examples_and_scenes_come_with_their_captions(client: TestClient):
    scene, example = (client.get(f"/api/{kind}/3").json() for kind in ("scene", "example"))
    assert scene["captions"] == list(make_scene(0, 3, "test").captions)
    assert example == scene  # the data of this run are those scenes
    assert "there are 0 to 7" in refused(client.get("/api/example/8"), 422)
    assert "choose from 0" in refused(client.get("/api/scene/-1"), 422)
    assert "number" in refused(client.get("/api/scene/x"), 422)


@pytest.mark.parametrize("k", [1, 4, LENGTH])
def test_a_prefix_shows_and_says_what_the_models_do(
    client: TestClient, opened: dict[str, Any], tokenizer: SeqTokenizer, generator: SeqGenerator, k: int
):
    answer = client.post("/api/prefix", json={"latents": opened["latents"], "k": k}).json()
    latents = latents_of(opened)[None]
    assert torch.equal(pixels_of(answer["image"]), decode_all(tokenizer, latents, k)[0])
    assert answer["written"] == generator.captions.decode(tokenizer.write(latents[:, :k])[0])
    assert answer["captioned"] == generator.caption(latents[:, :k])[0]
    scores = [one["score"] for one in answer["nearest"]]
    assert scores == sorted(scores, reverse=True)
    with torch.no_grad():
        said = tokenizer.prefix_embeddings(latents[:, :k])[0, -1]
        for one in answer["nearest"]:
            ids = torch.tensor([generator.captions.encode(one["caption"])[:47]])  # more are not read
            assert abs(float(tokenizer.encode_text(ids)[0] @ said) - one["score"]) < 1e-5


def test_captions_of_ones_own_take_the_place_of_the_datas(client: TestClient, opened: dict[str, Any]):
    asked = {"latents": opened["latents"], "k": 2, "captions": ["a red circle", "one shape", "a red circle"]}
    answer = client.post("/api/prefix", json=asked).json()
    assert {one["caption"] for one in answer["nearest"]} == {"a red circle", "one shape"}


def test_swapped_tokens_are_those_of_the_other(client: TestClient, opened: dict[str, Any], tokenizer: SeqTokenizer):
    other = client.get("/api/scene/1").json()
    a, b = latents_of(opened), latents_of(other)
    for k in (0, 2, LENGTH):
        asked = {"first": opened["latents"], "second": other["latents"], "k": k}
        images = client.post("/api/swap", json=asked).json()["images"]
        mixed = torch.stack([torch.cat([b[:k], a[k:]]), torch.cat([a[:k], b[k:]])])
        for uri, picture in zip(images, decode_all(tokenizer, mixed, LENGTH), strict=True):
            assert torch.equal(pixels_of(uri), picture)


def test_a_prompt_emerges_token_by_token(client: TestClient, generator: SeqGenerator, tokenizer: SeqTokenizer):
    asked = {"prompt": "a red circle", "seed": 3, "guidance": 2.0, "watch": True}
    lines = told(client.post("/api/draw", json=asked))
    assert [line["k"] for line in lines] == list(range(1, LENGTH + 1))
    whole = latents_of(lines[-1])
    assert torch.equal(whole, generator.sample("a red circle", seed=3, guidance=2.0)[0])
    for line in lines:
        assert torch.equal(latents_of(line), whole[: line["k"]])
        assert torch.equal(pixels_of(line["image"]), decode_all(tokenizer, latents_of(line)[None], line["k"])[0])
    assert told(client.post("/api/draw", json=asked)) == lines
    assert told(client.post("/api/draw", json={**asked, "seed": 4})) != lines


def test_the_rest_is_drawn_anew_from_the_tokens_that_are_kept(client: TestClient, generator: SeqGenerator):
    first = told(client.post("/api/draw", json={"prompt": "a red circle"}))[-1]
    asked = {"prompt": "a red circle", "latents": first["latents"], "k": 2, "seed": 1, "watch": True}
    lines = told(client.post("/api/draw", json=asked))
    assert [line["k"] for line in lines] == list(range(3, LENGTH + 1))
    again = latents_of(lines[-1])
    assert torch.equal(again[:2], latents_of(first)[:2])
    assert torch.equal(again, generator.complete(latents_of(first)[None, :2], "a red circle", seed=1)[0])
    assert not torch.allclose(again[2:], latents_of(first)[2:])


def test_a_prefix_is_completed_without_a_prompt(
    client: TestClient, opened: dict[str, Any], generator: SeqGenerator, tokenizer: SeqTokenizer
):
    latents = latents_of(opened)
    for seed in (0, 1):
        (line,) = told(client.post("/api/draw", json={"latents": opened["latents"], "k": 2, "seed": seed}))
        whole = generator.complete(latents[None, :2], seed=seed, guidance=1.0)
        assert torch.equal(latents_of(line), whole[0])
        assert torch.equal(pixels_of(line["image"]), decode_all(tokenizer, whole, LENGTH)[0])
    (all_kept,) = told(client.post("/api/draw", json={"latents": opened["latents"], "k": LENGTH}))
    assert torch.equal(latents_of(all_kept), latents)


def test_unknown_words_are_named_before_the_drawing(client: TestClient):
    lines = told(client.post("/api/draw", json={"prompt": "a red zebra"}))
    assert "'zebra'" in lines[0]["warning"]
    assert "warning" not in told(client.post("/api/draw", json={"prompt": "a red circle"}))[0]


def test_a_drawing_that_is_no_picture_is_one_sentence(client: TestClient):
    for setting in ("guidance", "temperature"):
        (line,) = told(client.post("/api/draw", json={"prompt": "a red circle", setting: 1e308}))
        assert "less guidance" in line["error"]


def test_a_caption_is_the_models(client: TestClient, opened: dict[str, Any], generator: SeqGenerator):
    asked = {"latents": opened["latents"], "k": 3, "level": 0, "candidates": 3, "seed": 2}
    expected = generator.caption(latents_of(opened)[None, :3], level=0, candidates=3, seed=2)[0]
    assert client.post("/api/caption", json=asked).json() == {"caption": expected}


def test_twenty_at_once_are_answered_as_one_by_one(client: TestClient, opened: dict[str, Any]):
    """Of different kinds, so that answers that were mixed up would be seen."""
    asked: list[tuple[str, dict[str, Any]]] = []
    for n in range(5):
        own = {"latents": opened["latents"], "k": 1 + n}
        asked += [("prefix", own), ("draw", {**own, "seed": n, "watch": True}), ("caption", own)]
        asked += [("draw", {"prompt": "a red circle", "seed": n, "watch": True})]
    post = lambda one: client.post(f"/api/{one[0]}", json=one[1]).text  # noqa: E731
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(post, asked)) == [post(one) for one in asked]


def test_a_page_that_goes_away_stops_its_drawing(run: Path, monkeypatch: pytest.MonkeyPatch):
    """The second token is held back until the server knows that nobody listens; a third is never begun."""
    studio, gone, shown = Studio.load(find_parts(str(run))), threading.Event(), []
    decode = studio.decode

    def watched(latents: torch.Tensor, k: int) -> torch.Tensor:
        shown.append(k)
        assert k != 2 or gone.wait(30)
        return decode(latents, k)

    monkeypatch.setattr(studio, "decode", watched)
    app, body = build_app(studio), b'{"prompt": "a red circle", "watch": true}'
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/draw", "query_string": b"", "headers": headers}

    async def main() -> None:
        heard = asyncio.Event()
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await heard.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message.get("body"):
                heard.set()

        await app(scope, receive, send)
        gone.set()
        client = TestClient(app, base_url="http://localhost")
        assert (await asyncio.to_thread(client.get, "/api/about")).status_code == 200  # when its turn has come

    asyncio.run(main())
    assert shown == [1, 2]


def bomb() -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"not a picture at all", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (picture_bytes()[:-400], "damaged image"),
        (picture_bytes(form="JPEG")[:-60], "damaged image"),
        (bomb(), "too many pixels"),
    ],
    ids=["empty", "text", "svg", "cut png", "cut jpeg", "bomb"],
)
def test_a_bad_upload_is_one_sentence(client: TestClient, data: bytes, message: str):
    assert message in refused(client.post("/api/picture", content=data), 422)


@pytest.mark.parametrize(
    ("path", "asked", "message"),
    [
        ("prefix", {"latents": "!", "k": 1}, "not base64"),
        ("prefix", {"latents": to_base64(torch.zeros(2, 7)), "k": 1}, "14 values, not 1 to 6 tokens of 3"),
        ("prefix", {"latents": to_base64(torch.zeros(7, 3)), "k": 1}, "21 values"),
        ("prefix", {"latents": to_base64(torch.full((6, 3), torch.nan)), "k": 1}, "no numbers"),
        ("prefix", {"latents": to_base64(torch.zeros(6, 3)), "k": 7}, "k=7: choose from 0 to 6"),
        ("prefix", {"latents": to_base64(torch.zeros(6, 3)), "k": 0}, "k: "),
        ("prefix", {"latents": to_base64(torch.zeros(6, 3)), "k": 1, "captions": ["x"] * 201}, "captions: "),
        (
            "swap",
            {"first": to_base64(torch.zeros(6, 3)), "second": to_base64(torch.zeros(2, 3)), "k": 1},
            "all 6 tokens",
        ),
        ("draw", {"prompt": "a red circle " * 100}, "at most 64 are read"),
        ("draw", {"prompt": "x", "latents": to_base64(torch.zeros(2, 3)), "k": 3}, "2 tokens are given"),
        ("draw", {"prompt": "x", "k": 1}, "0 tokens are given"),
        ("draw", {"prompt": "x", "guidance": -1.0}, "guidance"),
        ("draw", {"prompt": "x", "tokens": 1}, "tokens: "),
        ("caption", {"latents": to_base64(torch.zeros(6, 3)), "k": 2, "level": 9}, "level=9"),
        ("caption", {"latents": to_base64(torch.zeros(6, 3)), "k": 2, "candidates": 1000}, "candidates: "),
    ],
)
def test_a_wrong_request_is_one_sentence(client: TestClient, path: str, asked: dict[str, Any], message: str):
    assert message in refused(client.post(f"/api/{path}", json=asked), 422)


def test_what_is_no_json_is_one_sentence(client: TestClient):
    refused(client.post("/api/draw", content=b"{", headers={"Content-Type": "application/json"}), 422)


def test_captions_that_are_too_long_for_the_text_side_are_cut(client: TestClient, opened: dict[str, Any]):
    asked = {"latents": opened["latents"], "k": 2, "captions": ["a red circle " * 60]}
    assert len(client.post("/api/prefix", json=asked).json()["nearest"]) == 1


def test_a_tokenizer_alone_can_be_explored(run: Path):
    alone = client_of(run / "tokenizer" / "model")
    about = alone.get("/api/about").json()
    assert (about["generator"], about["held_out"], about["report"]) == (None, None, False)
    opened = alone.get("/api/scene/0").json()
    answer = alone.post("/api/prefix", json={"latents": opened["latents"], "k": 2}).json()
    assert (answer["captioned"], answer["nearest"]) == (None, None)
    assert "no sequence model" in refused(alone.post("/api/draw", json={"prompt": "a red circle"}), 422)
    assert "no held-out data" in refused(alone.get("/api/example/0"), 422)
    assert "no report" in refused(alone.get("/report"), 404)
